"""`lpmppl party demo` and `leakage`: everything on this machine for a trial, and what a run would tell."""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lpmppl.cli import options
from lpmppl.cli.interrupted import ending
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.party import Dropout
from lpmppl.cli.settings import Settings
from lpmppl.errors import InputError, LpmError

__all__ = ["demo", "leakage"]


def demo(
    helpers: Annotated[int, typer.Option(help="How many helpers.")] = 3,
    agents: options.People = 5_000,
    days: options.Days = 30,
    seed: options.Seed = 0,
    clients: Annotated[int, typer.Option(min=1, help="How many processes people are parted among.")] = 2,
    dropout: Dropout = 0.1,
    kill: Annotated[bool, typer.Option(help="Kill one helper half way, and begin it again.")] = True,
    proofs: Annotated[bool, typer.Option(help="Everybody proves that its numbers are in range.")] = True,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what the parties leave in this new folder.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Let a society live among helpers, a coordinator and clients, each a process here, and check the result.

    People are New Yorkers in households with contacts across boroughs. Those who die in mid-upload are missing from the
    sum; all others' tallies must be those of one run in one place that lacks the same.

    [bold]Example[/]

    [cyan]lpmppl party demo --helpers 3 --agents 5000 --days 30 --dropout 0.1[/]
    """
    from lpmppl.cli.waiting import waiting
    from lpmppl.models import nyc
    from lpmppl.parties.trial import Trial

    people = nyc.population(agents)
    with tempfile.TemporaryDirectory() as passing:
        where = folder or Path(passing) / "parties"
        trial = Trial(people, where.absolute(), days, helpers, clients, dropout, kill, seed, proofs=proofs)
        with ending(), waiting("Living among parties"):
            found = trial.run()
    outcome: dict[str, Any] = {"agents": people.size, "days": days, "seed": seed, "helpers": helpers, **found}
    outcome["peak_rss_mb"] = peak_rss_mb()
    if as_json:
        print(json.dumps(outcome))
    else:
        same = "equal to" if found["equal_to_central"] else "NOT EQUAL TO"
        print(
            f"{people.size:,} people, {days} days, {found['sums']} sums among {helpers} helpers in "
            f"{found['seconds']:,.1f} s: {same} the run in one place\n"
            f"{found['agents_included']:,} of {people.size * days:,} people's days were in all sums of the day; "
            f"{found['bytes_per_agent']:g} bytes a person and sum\n"
            + "\n".join(f"{name}: {total:,}" for name, total in found["totals"].items())
        )
    if not found["equal_to_central"]:
        raise LpmError("the parties' society isn't that of one place; keep --folder DIR and report it")


def leakage(
    name: Annotated[str, typer.Argument(metavar="nyc", help="Whose society.")] = "nyc",
    model: options.Model = "pandemic",
    agents: options.People = 100_000,
    days: options.Days = 60,
    seed: options.Seed = 0,
    helpers: Annotated[int, typer.Option(help="How many helpers.")] = 3,
    least: Annotated[int, typer.Option(help="The fewest people that a sum is opened over.")] = 10,
    by: Annotated[str, typer.Option(metavar="NAME,…", help="What tallies are broken down by.")] = "borough",
    noise: Annotated[
        float | None, typer.Option(metavar="SIGMA", help="Open all sums with this noise of every helper instead.")
    ] = None,
    delta: Annotated[float, typer.Option(help="With --noise, the δ of differential privacy.")] = 1e-6,
    compare: Annotated[
        bool, typer.Option("--compare", help="Open no sums over networks, only infections, each to its agent.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run a society under secret sharing, and say what each party learnt of its people.

    Helpers learn nothing unless all of them collude, or with --compare half of them. Everybody learns the sums that are
    opened: how much they tell at most, in bits; how much of one person, on average; and of how many people one of them
    told that they have it (everybody in their group has), or for what share of people a sum told that they don't
    (nobody in their group has).

    [bold]Example[/]

    [cyan]lpmppl party leakage nyc --agents 100000 --days 60[/]

    [cyan]lpmppl party leakage nyc --model seirm --agents 2000 --days 20 --compare[/]  sums that nobody ever has
    """
    from lpmppl.cli.simulate import people_for
    from lpmppl.effects.handlers.sharing import SecretShared
    from lpmppl.effects.opening import Compared, Custodian, Noised, Opening
    from lpmppl.inference.run import run

    if compare and noise is not None:
        raise InputError(f"--compare --noise {noise:g}: sums that are never opened need no noise; give one of them")
    opening: Opening = Compared(least=least) if compare else Custodian(least=least)
    opening = opening if noise is None else Noised(sigma=noise)
    if not 0 < delta < 1:
        raise InputError(f"--delta {delta}: give a number between 0 and 1")
    asked = Settings(name, "", model, agents, days, seed, 0, "cpu", {}, ())
    place = importlib.import_module(f"lpmppl.models.{name}")
    strata = {dim: place.STRATA.get(dim, dim) for dim in by.split(",")}
    city = getattr(place, model)(people_for(asked), by=strata)
    with SecretShared(helpers, opening=opening, ledger=True, quiet=True) as secret:
        run(city, days=days, seed=seed)
    assert secret.ledger is not None
    outcome: dict[str, Any] = {
        "agents": agents,
        "days": days,
        "seed": seed,
        "mode": str(secret),
        "opened": secret.opened,
        "kept": secret.kept,
        "bits_to_fewer_than_half_of_helpers" if compare else "bits_to_fewer_than_all_helpers": 0,
        "people_identified": sum(entry.identified for entry in secret.ledger.opened.values()),
        "learnt": secret.ledger.rows,
        "peak_rss_mb": peak_rss_mb(),
    }
    if compare:
        outcome["never_opened"] = secret.hidden
    if isinstance(opening, Noised):
        outcome["epsilon"] = round(opening.epsilon(secret.opened, delta), 3)
        outcome["delta"] = delta
    print(json.dumps(outcome) if as_json else _told(outcome))


def _told(outcome: dict[str, Any]) -> str:
    lines = [outcome["mode"], f"{outcome['opened']:,} sums opened, {outcome['kept']:,} kept by custodians", ""]
    for row in outcome["learnt"]:
        if "bits" in row and "epsilon" in outcome:
            lines.append(f"{row['network']}: {row['sums']:,} sums over {row['groups']:,} groups, noised")
        elif "bits" in row:
            lines.append(
                f"{row['network']}: {row['sums']:,} sums over {row['groups']:,} groups, the smallest of "
                f"{row['smallest']:,}; at most {row['bits']:,.0f} bits in all, {row['bits_each']:.3f} of one person; "
                f"{row['identified']:,} people identified, {row['cleared']:.1%} told apart as not having it"
            )
        elif row["learnt by"] == "nobody":
            lines.append(f"{row['network']}: {row['sums']:,} sums, never opened; an agent learns of its own infection")
        else:
            lines.append(f"{row['network']}: {row['sums']:,} sums, which only custodians have, of their own")
    if "epsilon" in outcome:
        lines.append(f"differential privacy: ε = {outcome['epsilon']:g} at δ = {outcome['delta']:g}, of each person")
    return "\n".join(lines)
