"""Weights from PyTorch's files into Paddle's and back."""

from cream.convert.convert import from_torch, main, to_torch

__all__ = ["from_torch", "main", "to_torch"]
