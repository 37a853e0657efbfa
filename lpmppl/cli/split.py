"""`lpmppl party institution` and `server`: split learning, by institutions that keep their series."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmppl.cli import options
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.party import Certificates, Host, MetricsPort, Port, SessionFile, State, kept, papers, serve, two
from lpmppl.errors import InputError, nearest

if TYPE_CHECKING:
    from lpmppl.parties.agreement import SplitAgreement

__all__ = ["Institutions", "agreement", "institution", "server"]

Institutions = Annotated[
    list[str] | None,
    typer.Option("--institution", metavar="NAME=STREAM,…", help="Whose streams are whose, as agreed on. Repeatable."),
]
Simulations = Annotated[int, typer.Option(help="How many runs the server makes, as agreed on.")]


def institution(
    session: SessionFile,
    certificates: Certificates,
    state: State,
    name: Annotated[str, typer.Option(help="The institution's name in the session.")],
    data: Annotated[Path, typer.Option(metavar="CSV", help="What it saw: a column a stream, a row a day.")],
    institutions: Institutions = None,
    days: options.Days = 40,
    simulations: Simulations = 512,
    seed: options.Seed = 0,
    own_weights: Annotated[
        bool, typer.Option("--own-weights", help="Begin with weights that only it knows, instead of the seed's.")
    ] = False,
    port: Port = 0,
    host: Host = "127.0.0.1",
    metrics: MetricsPort = None,
) -> None:
    r"""Be an institution of split learning, until it is told to end: its data and its encoder stay with it.

    It reads series of the server's runs with an encoder of its own, learns to read them better, and at the end reads
    its own data, once: 128 numbers for each of its series, which may tell much of them.

    [bold]Example[/]

    [cyan]lpmppl party institution --session s.json --certificates certificates --state hospitals --name hospitals \
    --data hospitals.csv --institution hospitals=infections --institution registry=recoveries --port 5001[/]
    """
    from lpmppl.parties import reading
    from lpmppl.parties.encoding import Encoding
    from lpmppl.parties.institution import seen

    terms = agreement(institutions, days, simulations, seed)
    who, own = papers(session, certificates, name)
    terms.check(who)
    counts = seen(data, list(terms.of(name)), days)
    mine = Encoding(who, terms, name, two(), counts, state, own_weights=own_weights)
    serve(lambda: reading.serve(mine, port, own, metrics, host=host))


def server(
    session: SessionFile,
    certificates: Certificates,
    state: State,
    people: Annotated[Path, typer.Option(metavar="P.zarr", help="The people of the society.")],
    addresses: Annotated[
        str, typer.Option("--institutions", metavar="NAME=HOST:PORT,…", help="Where the institutions answer.")
    ],
    out: Annotated[Path, typer.Option(metavar="FIT.nc", help="Keep the posterior here.")],
    institutions: Institutions = None,
    days: options.Days = 40,
    simulations: Simulations = 512,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option(help="Draws of the posterior.")] = 1000,
    patience: Annotated[
        float | None, typer.Option(help="Seconds that an institution may be away; 20 deadlines by default.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Be the server of split learning: calibrate SIR by what institutions read in data that it never sees.

    It makes the runs, and goes on from its state folder where it was broken off; institutions that are away are waited
    for.

    [bold]Example[/]

    [cyan]lpmppl party server --session s.json --certificates certificates --state server --people city.zarr \
    --institution hospitals=infections --institution registry=recoveries \
    --institutions hospitals=127.0.0.1:5001,registry=127.0.0.1:5002 --out fit.nc[/]
    """
    import time

    from lpmppl.models import nyc
    from lpmppl.models.population import Population
    from lpmppl.parties.line import Line
    from lpmppl.parties.session import COORDINATOR
    from lpmppl.parties.split import Server

    began = time.perf_counter()
    terms = agreement(institutions, days, simulations, seed)
    who, own = papers(session, certificates, COORDINATOR)
    terms.check(who)
    where = _named(addresses.split(","), "--institutions", "NAME=HOST:PORT,…")
    model = nyc.sir(Population.open(people), by={"borough": "borough"})
    with Line(who, own, where, patience=patience, log=sys.stderr) as line:
        learner = Server(model, terms, line, state)
        ((_, loss),) = learner.learn().items()
        tree = learner.posterior(learner.institutions, draws=draws)
    means = kept(tree, out)
    outcome = {
        "agents": model.population.size,
        "days": days,
        "seed": seed,
        "loss": loss,
        "posterior_mean": means,
        "steps": len(learner.losses),
        "bytes": dict(line.traffic),
        "seconds": round(time.perf_counter() - began, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(outcome) if as_json else f"{out}: loss {loss:.3f}, {means}")


def agreement(institutions: Sequence[str] | None, days: int, simulations: int, seed: int) -> SplitAgreement:
    """What `--institution` and its companions say."""
    from lpmppl.parties.agreement import SplitAgreement

    if not institutions:
        raise InputError("--institution NAME=STREAM,…: say whose streams are whose, once for each institution")
    streams = {name: given.split(",") for name, given in _named(institutions, "--institution", "NAME=STREAM,…").items()}
    tallies = two().tallies
    flat = [stream for mine in streams.values() for stream in mine]
    for stream in flat:
        if stream not in tallies:
            raise InputError(nearest("tally of SIR", stream, tallies))
        if flat.count(stream) > 1:
            raise InputError(f"--institution: '{stream}' was given twice: give it to one institution")
    return SplitAgreement(streams, days, simulations, seed)


def _named(given: Sequence[str], option: str, form: str) -> dict[str, str]:
    """What stands behind each name, each name once."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, rest = one.partition("=")
        if not equals or not name or not rest:
            raise InputError(f"{option} {one}: write {form}")
        if name in found:
            raise InputError(f"{option}: '{name}' was given twice")
        found[name] = rest
    return found
