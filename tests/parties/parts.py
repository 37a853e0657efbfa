"""What tests of parties are made of: small sessions, messages made by hand, and sums in Python's integers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.parties.arithmetic import split
from lpmppl.parties.session import Session, helper_name
from lpmppl.parties.splitting import Parted
from lpmppl.parties.terms import PLAIN, Terms
from lpmppl.parties.wire import Kind, Parts, packed

SHARING = bytes(range(16))


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_disks() -> Iterator[None]:
    """These tests end processes, and not the machine: for modules that write in their own process."""
    with patch("os.fsync"):
        yield


def session(clients: dict[str, int] | None = None, **options: Any) -> Session:
    options = {"model": "sir-1", "helpers": 3, "least": 2, "longest": 64, **options}
    return Session.new(clients={"bronx": 6, "queens": 5} if clients is None else clients, **options)


def whole(values: Tensor | NDArray[np.int64]) -> list[int]:
    """The sum over agents modulo 2⁶⁴ in Python's integers, from −2⁶³."""
    rows = values.tolist()
    return [(sum(column) + 2**63) % 2**64 - 2**63 for column in zip(*rows, strict=True)]


def numbers(seed: int, agents: int, d: int) -> Tensor:
    """Any words of 64 bits."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-(2**63), 2**63, (agents, d)))


def messages(
    of: Session,
    client: str,
    values: Tensor,
    round: int = 0,
    slots: list[int] | None = None,
    sharing: bytes = SHARING,
    terms: Terms = PLAIN,
    cheat: Callable[[Parted], None] = lambda _: None,
) -> list[bytes]:
    """One message for each helper with the parts of some slots, which a cheat may change before they are sent."""
    at = np.arange(len(values)) if slots is None else np.array(slots)
    parts = split(of, values.numpy()[at], at.astype(np.uint32), terms)
    cheat(parts)
    rows, d = np.ones(len(at), bool), values.shape[1]
    return [
        packed(of, Kind.PARTS, client, helper_name(k), round, d, Parts.body(sharing, *parts.of(k, rows), terms))
        for k in range(of.helpers)
    ]


def changed(message: bytes, offset: int, form: str, value: int | bytes) -> bytes:
    """A message with another value at an offset."""
    content = bytearray(message)
    struct.pack_into(form, content, offset, value)
    return bytes(content)


def modes(folder: Path) -> dict[str, int]:
    """The permissions of all files below a folder."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
