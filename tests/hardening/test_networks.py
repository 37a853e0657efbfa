"""Checkpoints and networks, damaged on the way or with other numbers in them: gone on with, or refused on purpose."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import lpmppl as lpm
from tests.hardening.documents import society
from tests.hardening.strategies import (
    MANY,
    Shown,
    few,
    fuzz_file,
    json_after,
    many,
    of_bytes,
    read_or_refused,
    replaced,
    value_edits,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz"
    lpm.run(society(100), days=4, checkpoint=path, checkpoint_every=2)
    return path


def _meta(content: bytes, edits: Any) -> bytes:
    """A checkpoint whose description has other values, with right checksums."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["meta"] = np.array(json_after(json.loads(str(arrays["meta"])), edits).decode())
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _arrays(content: bytes, edits: Any) -> bytes:
    """A checkpoint one of whose arrays is another, with right checksums."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for place, how in edits:
        names = sorted(name for name in arrays if name not in ("meta", "sum"))
        if not names:
            break
        name = names[int(place * len(names))]
        x = arrays[name]
        match how:
            case "gone":
                del arrays[name]
            case "short":
                arrays[name] = x[..., :-1] if x.ndim else x
            case "text":
                arrays[name] = np.array("abc")
            case "float" | "complex" if x.dtype.kind not in "Uc":
                arrays[name] = x.astype(how)
            case "flat":
                arrays[name] = x.reshape(-1)
            case "none":
                arrays[name] = np.zeros(0)
            case "unsigned":
                arrays[name] = np.ones(x.shape, np.uint32)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


array_edits = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["gone", "short", "text", "float", "complex", "flat", "none", "unsigned"]),
)
of_checkpoints = st.one_of(
    of_bytes,
    st.tuples(st.just(_meta), few(value_edits)),
    st.tuples(st.just(_arrays), few(array_edits, 2)),
    replaced,
)


@many(12, 500)
def test_a_damaged_checkpoint(checkpoint: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    path, model = tmp_path / "checkpoint.npz", society(100)
    path.write_bytes(checkpoint.read_bytes())
    assert read_or_refused(lambda: lpm.run(model, days=4, resume=path))

    fuzz_file(path, lambda: lpm.run(model, days=4, resume=path), many, shown, of_checkpoints)


@pytest.mark.slow
def test_a_damaged_calibration(tmp_path: Path, shown: Shown) -> None:
    """One whose rounds were kept to go on from."""
    torch.set_num_threads(1)
    model, path = society(100), tmp_path / "checkpoint.npz"

    def fit(resume: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lpm.calibrate(
                model, {"infections": [1.0, 2.0, 4.0, 3.0]}, parameters=["beta"], set={"initial_infected": 0.03},
                rounds=1, rows=8, steps=10, draws=10, restarts=1, simulations=2, checkpoint=path, resume=resume,
            )  # fmt: skip

    fit(resume=False)
    fuzz_file(path, lambda: fit(resume=True), MANY, shown, of_checkpoints)


@many(3, 100)
def test_a_damaged_network(many: int, tmp_path: Path, shown: Shown) -> None:
    """One that calibrates, kept to go on from."""
    torch.set_num_threads(1)
    network = lpm.CalibNN(society(100), "infections", 4)
    network.learn(8)
    path = tmp_path / "network.npz"
    network.save(path)
    fuzz_file(path, lambda: network.resume(path), many, shown, of_checkpoints)


@many(10, 300)
def test_a_damaged_network_that_decides(many: int, tmp_path: Path, shown: Shown) -> None:
    from lpmppl.effects.choices import Choices
    from lpmppl.effects.handlers.neural import ChoiceNetwork

    one, chance = torch.ones(1, dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64)
    codes = torch.zeros(1, 1, dtype=torch.int64)
    like = Choices("go", ("yes", "no"), {"age": ("young", "old")}, codes, {"risk": one}, chance, one)
    path = tmp_path / "network.pt"
    ChoiceNetwork(like, [4]).save(path)
    damage = st.one_of(of_bytes, replaced)
    fuzz_file(path, lambda: ChoiceNetwork.load(path), many, shown, damage, tmp_path, one_line=False)
