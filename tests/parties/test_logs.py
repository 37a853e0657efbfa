"""Logs of a whole session: an object a line, and nothing of what is kept."""

from __future__ import annotations

import base64
import io
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lpmppl.errors import LpmError
from lpmppl.parties import splitting, uploads
from lpmppl.parties.arithmetic import split
from lpmppl.parties.logs import Log
from lpmppl.parties.splitting import Additive, Parted
from tests.parties.parts import messages, numbers, session
from tests.parties.processes import PATIENCE, call, town


def test_no_secret_is_in_any_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds, shares and numbers as hex, decimal and base64, and keys; with refusals, drop-outs and a restart."""
    made: list[Additive] = []

    def seen(*args: Any) -> Parted:
        parts = split(*args)
        assert isinstance(parts, Additive)
        made.append(parts)
        return parts

    monkeypatch.setattr(uploads, "split", seen)
    of = session({"bronx": 20, "queens": 15}, least=5)
    x, y = numbers(1, 20, 3), numbers(2, 15, 3)
    with town(tmp_path, of) as up, up.client("bronx") as bronx, up.client("queens") as queens:
        totals = []
        for round in range(3):
            with ThreadPoolExecutor(2) as pool:
                pending = [pool.submit(bronx.sum, x, torch.arange(20) < 3), pool.submit(queens.sum, y)]
                if round == 1:
                    up.helpers[2].kill()
                    up.helpers[2].start()
                totals.append(pending[0].result(PATIENCE).total)
        with pytest.raises(Exception, match="late"):
            call(up, "bronx", up.helpers[0], "PARTS", messages(of, "bronx", x)[0])
        logs = "\n".join(party.log for party in (*up.helpers, up.coordinator))
        keys = [path.read_text() for path in (tmp_path / "certificates").glob("*.key")]
    lines = [json.loads(line) for line in logs.splitlines() if line]
    assert all({"time", "party", "event", "session"} <= set(line) for line in lines)
    assert {"listening", "begun", "resumed", "closed", "summed", "decided", "opened", "refused", "done"} <= {
        line["event"] for line in lines
    }
    assert len(made) == 6
    seeds = [seed.tobytes() for parts in made for seed in parts.seeds.reshape(-1, 32)]
    vectors = [vector for parts in made for vector in parts.vectors]
    rows = [*vectors, *x.numpy(), *y.numpy(), *(total.numpy() for total in totals)]
    rows += [splitting.expanded(np.frombuffer(seed, np.uint8)[None], 3)[0] for seed in seeds]
    known = {word for row in rows for word in spelled(row.tobytes())} | {word for s in seeds for word in spelled(s)}
    known |= {str(number) for row in rows for n in row.tolist() for number in (n, n % 2**64)}
    known |= {word for row in rows for n in row for word in spelled(n.tobytes())}
    known |= {line for key in keys for line in key.splitlines() if not line.startswith("-")}
    assert len(known) > 1000
    assert not [word for word in known if word in logs]


def spelled(secret: bytes) -> set[str]:
    """The ways in which bytes may be written."""
    decimal = {str(int.from_bytes(secret, order)) for order in ("little", "big")}
    text = base64.b64encode(secret).decode().rstrip("=")
    return {secret.hex(), secret.hex().upper(), secret[::-1].hex(), text, text.translate({43: 45, 47: 95}), *decimal}


def test_a_secret_in_a_log_would_be_found() -> None:
    secret = secrets.token_bytes(32)
    stream = io.StringIO()
    Log("helper-0", session(), stream).say("refused", seed=base64.b64encode(secret).decode())
    assert any(word in stream.getvalue() for word in spelled(secret))


def test_a_client_may_log_too(tmp_path: Path) -> None:
    stream = io.StringIO()
    with town(tmp_path, session({"bronx": 6})) as up, up.client("bronx", log=stream) as bronx:
        bronx.sum(numbers(1, 6, 2))
        with pytest.raises(LpmError, match="wasn't opened"):
            bronx.sum(numbers(1, 6, 2), torch.ones(6, dtype=torch.bool))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["round"]) for line in lines] == [
        ("begun", 0),
        ("opened", 0),
        ("begun", 1),
        ("not-opened", 1),
    ]
    assert lines[1]["agents"] == 6
