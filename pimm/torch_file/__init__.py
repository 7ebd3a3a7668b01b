"""Read and write PyTorch's files of tensors without PyTorch."""

from pimm.safe_pickle import Inert
from pimm.torch_file.reader import TorchFile, load_torch, read_torch
from pimm.torch_file.tensors import BFLOAT16, is_bfloat16
from pimm.torch_file.writer import save_torch

__all__ = ["BFLOAT16", "Inert", "TorchFile", "is_bfloat16", "load_torch", "read_torch", "save_torch"]
