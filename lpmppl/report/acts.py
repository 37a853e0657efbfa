"""The policies of a counterfactual run as its page speaks of them: what they do, and on which days."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from lpmppl.report import tables
from lpmppl.report.axes import day_label, number
from lpmppl.report.blocks import join
from lpmppl.report.figures import Mark

__all__ = ["Act", "acts", "ask", "does", "drawn", "marks", "named", "policies", "read", "several", "triggers"]

ACT = re.compile(r"(?P<key>[^=]+)=(?P<value>.*?)(?P<trigger> on trigger)?@(?P<day>\d+)(?: \((?P<whom>.*)\))?", re.S)
"""How a run writes an act: `stimulus=500@30 (Bronx)`, or `stringency=80 on trigger@0`."""

MOST_NAMED = 3
MOST_TEXT = 26
MOST_MARKS = 6


@dataclass(frozen=True)
class Act:
    """One thing that a policy does: what is set to what from which day on, for whom alone, and whether on a trigger."""

    key: str
    value: str
    day: int
    whom: str = ""
    trigger: bool = False


def read(text: str) -> Act | None:
    """Read an act as a run writes it; None where it is written otherwise.

    >>> read("stimulus=500@30 (Bronx, 80+)")
    Act(key='stimulus', value='500', day=30, whom='Bronx, 80+', trigger=False)
    >>> read("a cheque")
    """
    found = ACT.fullmatch(text)
    if not found:
        return None
    return Act(found["key"], found["value"], int(found["day"]), found["whom"] or "", bool(found["trigger"]))


def several(tree: xr.DataTree) -> int:
    """Count the draws behind a run's tallies."""
    sizes = tree["prior_predictive"].to_dataset().sizes
    return int(sizes.get("chain", 1) * sizes.get("draw", 1))


def drawn(tree: xr.DataTree) -> str:
    """Say what a run's means are of, after "Means of": how many draws, and whether they count differently."""
    weighted = "weight" in tree["prior_predictive"].to_dataset().coords
    return f"{several(tree)} draws{', weighted by what was observed' if weighted else ''}"


def policies(tree: xr.DataTree) -> list[str]:
    """Name the policies of a counterfactual run, in their order; none of any other run."""
    found = tree["effects"].to_dataset() if "effects" in tree.children else xr.Dataset()
    return [str(name) for name in found["policy"].values] if "policy" in found.coords else []


def acts(tree: xr.DataTree, policy: str) -> list[str]:
    """Give the acts of a policy as the run wrote them."""
    return [str(act) for act in json.loads(str(tree.attrs.get("policies", "{}"))).get(policy, [])]


def setting(act: Act) -> str:
    """Say what an act sets, and for whom alone."""
    return f"{act.key} = {act.value}{f' ({act.whom})' if act.whom else ''}"


def when(act: Act, start: str) -> str:
    """Say from when on an act is in force."""
    return f"{'on a trigger watched ' if act.trigger else ''}from {day_label(act.day, start)}"


def does(tree: xr.DataTree, policy: str) -> str:
    """Say what a policy does, act by act; those of one day together.

    >>> acts = {"cheque": ["stimulus=500@30 (Bronx)", "stringency=80 on trigger@0"]}
    >>> does(xr.DataTree(xr.Dataset(attrs={"policies": json.dumps(acts)})), "cheque")
    'stimulus = 500 (Bronx) from day 30 and stringency = 80 on a trigger watched from day 0'
    """
    start = str(tree.attrs.get("start", ""))
    together: dict[str, list[str]] = {}
    for text in acts(tree, policy):
        act = read(text)
        together.setdefault(when(act, start) if act else "", []).append(setting(act) if act else text)
    return join([f"{join(settings)} {moment}".rstrip() for moment, settings in together.items()] or [""])


def triggers(tree: xr.DataTree, policy: str) -> list[str]:
    """Say on which days the triggers of a policy were in force."""
    if "triggers" not in tree.children:
        return []
    on = tree["triggers"].to_dataset()["in_force"]
    start, found = str(tree.attrs.get("start", "")), []
    for k in (k for k, name in enumerate(on["policy_of"].values) if str(name) == policy):
        each = on.isel(trigger=k).stack(sample=("chain", "draw")).transpose("sample", "day").to_numpy()
        act = read(str(on["act"].values[k]))
        what = setting(act) if act else str(on["act"].values[k])
        begun = [int(draw.argmax()) for draw in each if draw.any()]
        if not begun:
            found.append(f"{what}: never in force")
            continue
        between = [day_label(day, start) for day in (min(begun), max(begun))]
        begins = (
            f"first on {between[0]}" if between[0] == between[1] else f"first between {between[0]} and {between[1]}"
        )
        often = "" if len(begun) == len(each) else f" in {len(begun)} of {len(each)} draws"
        mean = " on average" if len(each) > 1 else ""
        found.append(f"{what}: in force{often} on {number(float(each.sum()) / len(each))} days{mean}, {begins}")
    return found


def named(tree: xr.DataTree, policy: str) -> str:
    """Name a policy within a sentence: by its own name, or where it has none by what it does."""
    texts = acts(tree, policy)
    if texts and policy == ", ".join(texts):
        return does(tree, policy)
    return f"“{policy}”"


def ask(tree: xr.DataTree, where: str, always: Sequence[str]) -> str:
    """Put the question that a counterfactual run answers; `always` is what is done in every world."""
    names = policies(tree)
    days = int(tree.attrs["days"])
    if len(names) > MOST_NAMED:
        subject = f"each of {len(names)} policies"
    else:
        subject = join([named(tree, name) for name in names])
    among = f"{tables.agents(tree)}{where}"
    given = f", where {join(list(always))} in every world" if always else ""
    return f"What would {subject} have done among {among} in {days} {'day' if days == 1 else 'days'}{given}?"


def marks(tree: xr.DataTree) -> list[Mark]:
    """Give the days on which policies act as marks, one a day, with the names of those that do."""
    found: dict[int, list[str]] = {}
    for policy in policies(tree):
        for act in filter(None, map(read, acts(tree, policy))):
            name = f"{policy} (trigger)" if act.trigger else policy
            if name not in found.setdefault(act.day, []):
                found[act.day].append(name)
    days = sorted(found)
    told: set[str] = set()
    given = []
    for day in days:
        # Of a policy that acts again and again, the first day alone is named.
        names = [name for name in found[day] if len(days) <= MOST_MARKS or name not in told]
        told.update(found[day])
        given.append(Mark(day, label(names)))
    return given


def label(names: Sequence[str]) -> str:
    """Name policies in the room that a mark has.

    >>> label(["cheque", "masks"]), label(["a very long name of a policy indeed"]), label(["one of them"] * 4)
    ('cheque, masks', 'a very long name of a pol…', '4 policies')
    """
    text = ", ".join(names)
    if len(text) <= MOST_TEXT:
        return text
    return f"{len(names)} policies" if len(names) > 1 else f"{text[: MOST_TEXT - 1]}…"
