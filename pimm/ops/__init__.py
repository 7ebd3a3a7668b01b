"""Operators written for this project where Paddle's own are slow."""

from .depthwise import depthwise_backend, depthwise_conv2d

__all__ = ["depthwise_backend", "depthwise_conv2d"]
