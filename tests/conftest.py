"""Settings of the whole test run."""

import os

import torch

# Small tensors run fastest in one thread, and workers of pytest-xdist share the cores
torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "offline")
