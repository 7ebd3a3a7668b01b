"""Read and write PyTorch's files of tensors without PyTorch."""

from pimm.safe_pickle import Inert
from pimm.torch_file.reader import TorchFile, begins_as_torch, load_torch, read_torch
from pimm.torch_file.writer import save_torch
from pimm.utils.bfloat16 import BFLOAT16, is_bfloat16

__all__ = ["BFLOAT16", "Inert", "TorchFile", "begins_as_torch", "is_bfloat16", "load_torch", "read_torch", "save_torch"]
