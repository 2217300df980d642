"""Settings of the whole test run."""

import os
from functools import cache
from importlib import metadata

import torch

# Small tensors run fastest in one thread, and workers of pytest-xdist share the cores
torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "offline")
# Each Trainer asks for them, and to look through all packages takes longer than its training here
metadata.entry_points = cache(metadata.entry_points)
