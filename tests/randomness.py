"""The states of the global generators, which nothing may touch."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["states"]


def states() -> tuple[Any, ...]:
    """Those of torch, Python and NumPy, to be compared."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), kind, keys.tolist(), rest
