"""What secret sharing costs: in one process beside the plain run, and among real parties on loopback.

    python bench/private.py [--agents 1000000] [--days 30] [--devices 20000] [--numbers 16] [--rounds 5]

Prints one JSON object: the time of a run under `SecretShared(parties=3)` over that of the plain run, each the best of
three one after the other, by model; GB/s of secrets that are split for three parties; and how many agents a second
three helpers, a coordinator and a client, each a process, add up over mutual TLS, with the bytes that each agent sends,
and the same where each number is proved to be 0 or 1.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lpmppl as lpm
from lpmppl.effects.handlers import SecretShared
from lpmppl.effects.internals.shares import shared
from lpmppl.models.model import Model
from lpmppl.parties.certificates import Credentials, issue
from lpmppl.parties.client import Rounds
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.terms import PLAIN, Rule, Terms
from lpmppl.parties.trial import Processes


def best(work: Callable[[], object], times: int = 3) -> float:
    """The least of a few times, in seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def in_process(agents: int, days: int) -> dict[str, float]:
    """Time under secret sharing over that of the plain run, by model."""
    people = lpm.nyc.population(agents)
    by = {"borough": "borough"}
    ratios = {}
    models: tuple[Model, ...] = (lpm.nyc.sir(people, by), lpm.nyc.seirm(people, by), lpm.nyc.pandemic(people, by=by))
    for model in models:

        def private(model: Model = model) -> None:
            with SecretShared(parties=3, quiet=True):
                lpm.run(model, days=days)

        lpm.run(model, days=1)
        private_first = best(private, 1)
        plain = best(partial(lpm.run, model, days))
        ratios[model.name] = round(min(private_first, best(private)) / plain, 2)
    return ratios


def splitting(numbers: int = 10_000_000) -> float:
    """GB/s of secrets that are split into three shares."""
    secret = torch.arange(numbers)
    shared(secret, 3)
    return round(8e-9 * numbers / best(lambda: shared(secret, 3), 5), 2)


def among_parties(devices: int, numbers: int, rounds: int, terms: Terms = PLAIN) -> dict[str, float]:
    """Agents a second and bytes an agent, of rounds among three helpers."""
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(passing)
        session = Session.new(
            model="bench", helpers=3, clients={"pool-0": devices}, deadline=300.0, proofs=bool(terms.rule)
        )
        session.save(folder / "session.json")
        issue(folder / "certificates", session.parties)
        values = torch.randint(0, 2, (devices, numbers), generator=torch.Generator().manual_seed(0))
        with Processes(folder) as processes:
            ports = [processes.begin(helper_name(k), "aggregator", "--index", str(k), "--port", "0") for k in range(3)]
            helpers = [f"127.0.0.1:{port}" for port in ports]
            at = processes.begin(COORDINATOR, "coordinator", "--port", "0", "--helpers", ",".join(helpers))
            own = Credentials(folder / "certificates", "pool-0")
            with Rounds(session, "pool-0", own, helpers, f"127.0.0.1:{at}") as live:
                opened = live.sum(values, terms=terms)
                assert torch.equal(opened.total, values.sum(0))
                began = time.perf_counter()
                for _ in range(rounds):
                    opened = live.sum(values, terms=terms)
                seconds = (time.perf_counter() - began) / rounds
    return {"agents_per_second": round(devices / seconds), "bytes_per_agent": round(opened.bytes_sent / devices, 1)}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--numbers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, Any] = {"ratio": in_process(asked.agents, asked.days), "split_gb_per_second": splitting()}
    found |= among_parties(asked.devices, asked.numbers, asked.rounds)
    found["proved"] = among_parties(asked.devices, asked.numbers, asked.rounds, Terms(rule=Rule.BOOLEANS))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
