"""Where there is no GPU, Triton's kernels run in its interpreter, on NumPy."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton, which timm does
