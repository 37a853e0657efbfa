"""`lpmppl party`: a society whose parts nobody sees together, among real parties or on trial."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli import options
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.spelling import settings
from lpmppl.errors import InputError, nearest

if TYPE_CHECKING:
    from xarray import DataTree

    from lpmppl.models.model import Model
    from lpmppl.parties.certificates import Credentials
    from lpmppl.parties.session import Session

__all__ = ["kept", "papers", "party", "serve", "two"]

party = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Simulate a society whose people's states nobody sees: sums are shared in secret among helpers.

    [bold]Examples[/]

    [cyan]lpmppl party demo --helpers 3 --agents 5000 --dropout 0.1[/]  everything on this machine, for a trial

    [cyan]lpmppl party leakage nyc --agents 20000 --days 60[/]  what would each party learn of a run?
    """,
)

SessionFile = Annotated[Path, typer.Option("--session", metavar="S.json", help="What all parties have agreed on.")]
Certificates = Annotated[Path, typer.Option(metavar="DIR", help="The folder with ca.pem, NAME.pem and NAME.key.")]
State = Annotated[Path, typer.Option(metavar="DIR", help="A folder of this party's own, to go on from.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Where to answer; 0 takes a free one, which the log says.")]
Host = Annotated[str, typer.Option(help="The address to answer on.")]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics", min=0, max=65535, help="Serve /metrics and /health on this local port.")
]
Helpers = Annotated[str, typer.Option(metavar="HOST:PORT,…", help="The helpers' addresses, in order.")]
Coordinator = Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator's address.")]
Given = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter.")]
Noise = Annotated[
    float | None, typer.Option(metavar="SIGMA", help="Every helper adds noise to sums, of so many messages.")
]
Dropout = Annotated[float, typer.Option(help="For trials: the share of people who die in mid-upload each day.")]


@party.command("session")
def session(
    out: Annotated[Path, typer.Option(metavar="S.json", help="Write it here.")],
    clients: Annotated[list[str] | None, typer.Option("--client", metavar="NAME=AGENTS", help="Repeatable.")] = None,
    helpers: Annotated[int, typer.Option(help="How many helpers.")] = 3,
    days: options.Days = 30,
    seed: options.Seed = 0,
    given: Given = None,
    least: Annotated[int, typer.Option(help="The fewest people that a sum is opened over.")] = 10,
    threshold: Annotated[
        int | None, typer.Option(help="How many helpers open a sum, more than half; all of them by default.")
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that a round may take.")] = 30.0,
    proofs: Annotated[
        bool | None,
        typer.Option("--proofs/--no-proofs", help="Numbers are proved to be in range; so by default if they can be."),
    ] = None,
    noise: Noise = None,
    streams: Annotated[str, typer.Option(metavar="NAME,…", help="For `party calibrate`: what institutions see.")] = "",
    simulations: Annotated[int, typer.Option(help="For `party calibrate`: how many runs each makes.")] = 512,
    local: Annotated[int, typer.Option(help="For `party calibrate`: steps of its own that each takes a round.")] = 1,
    institutions: Annotated[
        list[str] | None,
        typer.Option("--institution", metavar="NAME=STREAM,…", help="For `party server`: who sees what. Repeatable."),
    ] = None,
) -> None:
    """Write what all parties of a run agree on: who they are, what they run, and over how many people sums are opened.

    [bold]Examples[/]

    [cyan]lpmppl party session --out s.json --client bronx=1200 --client queens=2100 --days 30[/]

    [cyan]lpmppl party session --out s.json --client bronx=1 --client queens=1 --client brooklyn=1 --least 2 \
    --streams infections --simulations 512 --days 40[/]  institutions that calibrate together

    [cyan]lpmppl party session --out s.json --institution hospitals=infections --institution registry=recoveries \
    --simulations 512 --days 40[/]  institutions that read their series for a server
    """
    from lpmppl.cli.split import agreement
    from lpmppl.effects.opening import Noised
    from lpmppl.parties import institution
    from lpmppl.parties.session import Session
    from lpmppl.parties.society import fingerprint

    if os.path.lexists(out):
        raise InputError(f"--out {out} exists: choose a new path")
    if institutions:
        if clients or streams or given or proofs or noise is not None:
            raise InputError("--institution: leave --client, --streams, --set, --proofs and --noise out")
        terms = agreement(institutions, days, simulations, seed)
        made = terms.session(two(), helpers, deadline=deadline, threshold=threshold)
        made.save(out)
        print(f"{out}: {len(made.parties)} parties, model {made.model}")
        return
    if not clients:
        raise InputError("--client NAME=AGENTS: name one or more, such as bronx=1200")
    members = {}
    for one in clients:
        name, _, many = one.partition("=")
        if not many.isdecimal():
            raise InputError(f"--client {one}: write NAME=AGENTS, such as bronx=1200")
        members[name] = int(many)
    parameters, model = settings(given or []), two()
    for one in parameters:
        if one not in model.parameters:
            raise InputError(nearest("parameter of SIR", one, model.parameters))
    seen = streams.split(",") if streams else []
    for one in seen:
        if one not in model.tallies:
            raise InputError(nearest("tally of SIR", one, model.tallies))
    if noise is not None:
        Noised(sigma=noise)
        if threshold is not None:
            raise InputError(f"--noise {noise:g}: with --threshold helpers add no noise; leave one of the two out")
    if seen and (proofs or noise is not None):
        raise InputError("--streams: what a network learns has no range to be proved or noised by; leave that out")
    if seen:
        agreed, longest = institution.fingerprint(seen, days, simulations, seed, local), institution.LONGEST
    else:
        agreed, longest = fingerprint(days, seed, parameters, noise), 4096
    made = Session.new(
        model=agreed,
        helpers=helpers,
        clients=members,
        least=least,
        deadline=deadline,
        longest=longest,
        threshold=threshold,
        proofs=not seen and threshold is None if proofs is None else proofs,
    )
    made.save(out)
    print(f"{out}: {len(made.parties)} parties, model {made.model}")


@party.command("certificates")
def certificates(
    session: SessionFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write them here.")],
    days: Annotated[float, typer.Option(help="Days of validity.")] = 30.0,
) -> None:
    """Make an authority and a certificate for each party of a session: for trials, or where one office runs it all.

    [bold]Example[/]

    [cyan]lpmppl party certificates --session s.json --out certificates[/]
    """
    from lpmppl.parties.certificates import issue
    from lpmppl.parties.session import Session

    parties = Session.open(session).parties
    issue(out, parties, days)
    print(f"{out}: {len(parties)} certificates; give each party ca.pem and its own two files, and keep ca.key")


@party.command("people")
def people(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write a file for each client into this new folder.")],
    clients: Annotated[int, typer.Option(min=1, help="How many clients.")] = 2,
    boroughs: Annotated[bool, typer.Option("--boroughs", help="Give each borough's people to an institution.")] = False,
    agents: options.People = 5_000,
    seed: options.PopulationSeed = 0,
) -> None:
    """Part New York's people among clients, whole households each: pool-0.zarr, pool-1.zarr and so on.

    [bold]Examples[/]

    [cyan]lpmppl party people --agents 5000 --clients 2 --out people[/]

    [cyan]lpmppl party people --agents 20000 --boroughs --out people[/]  bronx.zarr and others, who calibrate together
    """
    from lpmppl.models import nyc
    from lpmppl.parties.institution import by_borough
    from lpmppl.parties.society import parted

    if os.path.lexists(out):
        raise InputError(f"--out {out} exists: choose a new path")
    folk = nyc.population(agents, seed)
    parts = by_borough(folk) if boroughs else {f"pool-{k}": part for k, part in enumerate(parted(folk, clients))}
    new = next(p for p in (*reversed(out.parents), out) if not p.exists())
    out.mkdir(parents=True)
    try:
        for name, part in parts.items():
            part.save(out / f"{name}.zarr")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for name, part in parts.items():
        print(f"{out / f'{name}.zarr'}: {part.size} people")


@party.command("aggregator")
def aggregator(
    session: SessionFile,
    certificates: Certificates,
    state: State,
    index: Annotated[int, typer.Option(min=0, help="Which helper this is, from 0.")],
    port: Port = 0,
    host: Host = "127.0.0.1",
    metrics: MetricsPort = None,
) -> None:
    """Be a helper, until it is told to end: it adds up shares, and never sees a number.

    [bold]Example[/]

    [cyan]lpmppl party aggregator --session s.json --certificates certificates --state helper --index 0 --port 5001[/]
    """
    from lpmppl.parties import aggregator as helper
    from lpmppl.parties.session import helper_name

    agreed, own = papers(session, certificates, helper_name(index))
    serve(lambda: helper.serve(agreed, index, port, own, state, metrics, host=host))


@party.command("coordinator")
def coordinator(
    session: SessionFile,
    certificates: Certificates,
    state: State,
    helpers: Helpers,
    port: Port = 0,
    host: Host = "127.0.0.1",
    metrics: MetricsPort = None,
) -> None:
    r"""Be the coordinator, until it is told to end: it says over whom a sum is, and never sees a share.

    [bold]Example[/]

    [cyan]lpmppl party coordinator --session s.json --certificates certificates --state coordinator --port 5000 \
    --helpers 127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003[/]
    """
    from lpmppl.parties import coordinator as middle
    from lpmppl.parties.session import COORDINATOR

    agreed, own = papers(session, certificates, COORDINATOR)
    serve(lambda: middle.serve(agreed, port, own, helpers.split(","), state, metrics, host=host))


@party.command("client")
def client(
    session: SessionFile,
    certificates: Certificates,
    name: Annotated[str, typer.Option(help="The client's name in the session.")],
    helpers: Helpers,
    coordinator: Coordinator,
    people: Annotated[Path, typer.Option(metavar="P.zarr", help="Its people, of `lpmppl party people`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Keep what it knows afterwards here.")],
    days: options.Days = 30,
    seed: options.Seed = 0,
    given: Given = None,
    dropout: Dropout = 0.0,
    dropout_seed: Annotated[int, typer.Option(help="For trials: chance of who dies.")] = 0,
    sums: Annotated[int, typer.Option(help="For trials: how many sums a day has.")] = 1,
    noise: Noise = None,
    risk: Annotated[
        Path | None, typer.Option(metavar="RISK.nc", help="Keep its people's own risk of the last week here.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    r"""Be a client: an institution, or thousands of devices, whose people live with everybody's and stay its own.

    [bold]Example[/]

    [cyan]lpmppl party client --session s.json --certificates certificates --name bronx --people bronx.zarr \
    --helpers 127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003 --coordinator 127.0.0.1:5000 --out bronx.lived[/]
    """
    from lpmppl.models.population import Population
    from lpmppl.parties.client import Rounds
    from lpmppl.parties.risk import OwnRisk
    from lpmppl.parties.society import Dropouts, Known, fingerprint, lived
    from lpmppl.report.atomic import replacing

    parameters = settings(given or [])
    agreed, own = papers(session, certificates, name)
    if agreed.model != (mine := fingerprint(days, seed, parameters, noise)):
        raise InputError(
            f"the session is for model {agreed.model}, and these --days, --seed, --set and --noise make {mine}; give "
            "those that the session was made with"
        )
    if not 0 <= dropout < 1:
        raise InputError(f"--dropout {dropout}: give a share of people from 0 to below 1")
    folk = Population.open(people)
    lost = Dropouts(dropout, sums, dropout_seed) if dropout else None
    own_risk = OwnRisk() if risk else None
    with Rounds(agreed, name, own, helpers.split(","), coordinator) as rounds:
        tree, remote = lived(folk, rounds, days, seed, parameters, lost, own_risk, noise)
    known = Known.of(tree, remote)
    known.save(out)
    if risk and own_risk:
        content = io.BytesIO()
        own_risk.told().assign_coords(agent=folk.ids.numpy()).to_netcdf(content, engine="h5netcdf")
        with replacing(risk) as part:
            part.write_bytes(content.getbuffer())
    outcome = {
        "agents": folk.size,
        "days": days,
        "seed": seed,
        "sums": len(known.everybody),
        "totals": {tally: int(x.sum()) for tally, x in known.tallies.items()},
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(outcome) if as_json else f"{out}: {outcome['sums']} sums, {outcome['totals']}")


@party.command("calibrate")
def calibrate(
    session: SessionFile,
    certificates: Certificates,
    name: Annotated[str, typer.Option(help="The institution's name in the session.")],
    helpers: Helpers,
    coordinator: Coordinator,
    people: Annotated[Path, typer.Option(metavar="P.zarr", help="Its people.")],
    data: Annotated[Path, typer.Option(metavar="CSV", help="What it saw: a column a stream, a row a day.")],
    out: Annotated[Path, typer.Option(metavar="FIT.nc", help="Keep the posterior of its society here.")],
    streams: Annotated[str, typer.Option(metavar="NAME,…", help="What institutions see.")] = "infections",
    days: options.Days = 40,
    simulations: Annotated[int, typer.Option(help="How many runs it makes of its society.")] = 512,
    local: Annotated[int, typer.Option(help="Steps of its own that it takes a round.")] = 1,
    seed: options.Seed = 0,
    draws: Annotated[int, typer.Option(help="Draws of the posterior.")] = 1000,
    as_json: options.AsJson = False,
) -> None:
    r"""Be an institution that calibrates SIR together with others: its people, runs and data stay with it.

    All learn one network, by sums in secret of what they found, that gives each the posterior of its own society.

    [bold]Example[/]

    [cyan]lpmppl party calibrate --session s.json --certificates certificates --name bronx --people bronx.zarr \
    --data bronx.csv --helpers 127.0.0.1:5001,127.0.0.1:5002,127.0.0.1:5003 --coordinator 127.0.0.1:5000 \
    --out bronx.nc[/]
    """
    import time

    from lpmppl.models import nyc
    from lpmppl.models.population import Population
    from lpmppl.parties.client import Rounds
    from lpmppl.parties.institution import Institution, fingerprint, seen

    began, wanted = time.perf_counter(), streams.split(",")
    agreed, own = papers(session, certificates, name)
    if agreed.model != fingerprint(wanted, days, simulations, seed, local):
        raise InputError(
            f"the session is for model {agreed.model}, not for these --streams, --days, --simulations, --seed and "
            "--local; give those that the session was made with"
        )
    counts = seen(data, wanted, days)
    model = nyc.sir(Population.open(people), by={"borough": "borough"})
    with Rounds(agreed, name, own, helpers.split(","), coordinator) as rounds:
        learner = Institution(name, model, wanted, days, rounds, local=local, seed=seed)
        losses = learner.learn(simulations)
    tree = learner.posterior(counts, name, draws=draws)
    means = kept(tree, out)
    outcome = {
        "agents": model.population.size,
        "days": days,
        "seed": seed,
        "loss": losses[name],
        "posterior_mean": means,
        "rounds": rounds.round,
        "bytes_sent": learner.bytes_sent,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(outcome) if as_json else f"{out}: loss {losses[name]:.3f}, {means}")


def two() -> Model:
    """A society of two people, which has the form of data of all those that are calibrated."""
    from lpmppl.models.population import Population
    from lpmppl.parties.society import society

    return society(Population.of({"household": [0, 0], "borough": [0, 0]}))


def kept(tree: DataTree, out: Path) -> dict[str, float]:
    """Keep a posterior, and give the mean of each parameter."""
    from lpmppl.report import datatree

    datatree.save(tree, out)
    return {str(k): float(x.mean()) for k, x in tree["posterior"].data_vars.items()}


def papers(session: Path, certificates: Path, name: str) -> tuple[Session, Credentials]:
    """A party's session and its own credentials."""
    from lpmppl.parties.certificates import Credentials
    from lpmppl.parties.session import Session

    return Session.open(session), Credentials(certificates, name)


def serve(party: Callable[[], Any]) -> None:
    """Be a party that answers, until it is told to end."""
    import asyncio

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    asyncio.run(party())
