"""A part of a network in the midst of learning, as bytes and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from lpmppl.errors import InputError
from lpmppl.inference.training import Trained

__all__ = ["loaded", "packed", "put_back", "taken"]


def taken(part: Trained) -> dict[str, Any]:
    """All that a part is: its weights, their average over the last steps, and what its optimiser keeps."""
    return {
        "network": part.network.state_dict(),
        "averaged": part.averaged.state_dict(),
        "optimizer": part.optimizer.state_dict(),
    }


def put_back(part: Trained, state: dict[str, Any]) -> None:
    """Let a part be again what `taken` gave.

    Raises:
        InputError: for what is of another part.
    """
    try:
        part.network.load_state_dict(state["network"])
        part.averaged.load_state_dict(state["averaged"])
        part.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise InputError("the state of a network is damaged: put back a copy of it, or make a new session") from e
    part.optimizer.zero_grad()


def packed(state: dict[str, Any]) -> bytes:
    """Tensors, numbers and text by name, as bytes."""
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def loaded(content: bytes, path: Path) -> dict[str, Any]:
    """What `packed` was given.

    Raises:
        InputError: for bytes of something else, with the path that they are from.
    """
    try:
        state = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as e:
        # What unpickling raises may be anything.
        raise InputError(f"{path} is damaged: put back a copy of it, or make a new session") from e
    if not isinstance(state, dict):
        raise InputError(f"{path} is of something else: put back a copy of it, or make a new session")
    return state
