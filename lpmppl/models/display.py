"""What a population and a model look like in a notebook: HTML without scripts, on light pages and dark ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpmppl.models.diagram import COLOURS, FLAG, OWN, diagram

if TYPE_CHECKING:
    import xarray as xr

    from lpmppl.models.model import Model
    from lpmppl.models.population import Population

__all__ = ["model_html", "model_line", "number", "population_html", "population_line", "prior"]

ALL = 10_000_000
"""The most values that are all read for a summary; of more, every second, third … is."""

SAMPLED, BINS, SHOWN, FEW = 100_000, 24, 4, 8
"""Values behind a histogram, its bars, the labels said beside a bar, and the rows of a table that is open at once."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0;white-space:normal;max-width:34em"
_SOFT = "opacity:.72"


def number(x: float) -> str:
    """A number to four digits, with powers of ten as people write them.

    >>> number(8000.0), number(6.38e-7), number(-1.0), number(8_400_000)
    ('8,000', '6.38·10⁻⁷', '−1', '8,400,000')
    """
    if float(x).is_integer() and abs(x) < 1e7:
        return f"{int(x):,}".replace("-", "−")
    mantissa, _, power = (f"{x:,.0f}" if 1e3 <= abs(x) < 1e7 else f"{x:.4g}").partition("e")
    return f"{mantissa}·10{str(int(power)).translate(_RAISED)}" if power else mantissa.replace("-", "−")


def population_line(people: Population) -> str:
    """A population in a line."""
    groups = ", ".join(f"{name} {count:,}" for name, (count, _, _) in _groups(people).items())
    return f"<Population '{people.name}': {_here(people)}{'; ' if groups else ''}{groups}>"


def population_html(people: Population) -> str:
    """A population as a table: its groups, what is known of whom, and where it comes from."""
    data, groups, every = people.dataset, _groups(people), _step(people.size)
    sizes = [[_code(name), f"{count:,}", f"{mean:,.2f}", f"{most:,}"] for name, (count, mean, most) in groups.items()]
    rows = [_variable(str(name), data[name], groups) for name in data.variables if str(name) != "agent"]
    head = ["variable", "what it says", "of each", "type", "shares; least … mean … greatest", ""]
    note = f"<div style='{_SOFT}'>Values are of every {every}th agent.</div>" if every > 1 else ""
    return _page(
        people.name,
        f"{_here(people)}, tensors on {people.device}",
        _table(["groups", "how many", "mean size", "largest"], sizes),
        _fold(_many(len(rows), "variable"), head, rows, is_open=True) + note,
        _provenance(data.attrs),
    )


def model_line(model: Model) -> str:
    """A model in a line."""
    counts = (
        _many(model.population.size, "agent"),
        _many(len(model.parameters), "parameter"),
        f"{len(model.environment):,} that policies may change",
        _many(len(model.tallies), "tally", "tallies"),
    )
    return f"<{type(model).__name__} '{model.name}': {', '.join(counts)}>"


def model_html(model: Model) -> str:
    """A model as a drawing of its day, and tables of its parameters, its environment and its tallies."""
    parts = model.substeps(model.defaults())
    people = model.population
    where = f" ({escape(people.name)})" if "title" in people.dataset.attrs else ""
    parameters = [
        [_code(n), number(p.default), escape(p.units), escape(p.description), escape(prior(p.prior)), escape(p.source)]
        for n, p in model.parameters.items()
    ]
    knobs = [
        [
            _code(name),
            escape(_word(model, name, value)),
            escape(_values(model, name)),
            f"any {escape(model.targets[name])}" if name in model.targets else "all at once",
            ", ".join(_code(part.name) for part in parts if name in part.reads),
            "set back once it has worked" if name in model.pulses else "",
        ]
        for name, value in model.environment.items()
    ]
    strata = "" if not model.by or not model.by.dims else ", by " + " × ".join(model.by.dims)
    tallies = [[_code(n), escape(what), escape(model.units.get(n, "people"))] for n, what in model.tallies.items()]
    key = f"{FLAG} what policies may change · {OWN} keys of its own, as its last turn left them"
    return _page(
        model.name,
        f"{_here(people)}{where}; a day of {_many(len(parts), 'substep') if parts else 'one piece'}",
        diagram(model.name, parts, model.environment),
        f"<div style='{_SOFT};font-size:11.5px'>{key} · a line’s or a box’s keys show under the pointer</div>",
        _fold(
            _many(len(parameters), "parameter"),
            ["name", "default", "unit", "what it is", "prior, middle 90 %", "source"],
            parameters,
        ),
        _fold(
            f"{_many(len(knobs), 'part')} of the environment, which policies may change",
            ["name", "at the start", "values", "for whom", "read by", ""],
            knobs,
        ),
        _fold(_many(len(tallies), "tally", "tallies") + escape(strata), ["name", "what it counts", "unit"], tallies),
    )


def prior(p: Any) -> str:
    """The family of a prior and the middle nine tenths of it, or its constants where these aren't known.

    >>> import pyro.distributions as dist
    >>> prior(dist.LogNormal(0.0, 1.0)), prior(dist.Uniform(0.0, 2.0))
    ('log-normal, 0.19 to 5.2', 'uniform, 0.1 to 1.9')
    """
    from scipy import stats

    while hasattr(p, "base_dist") and type(p).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        p = p.base_dist
    kind = type(p).__name__
    words = {"LogNormal": "log-normal"}.get(kind, kind.lower())
    constants = {name: getattr(p, name) for name in getattr(p, "arg_constraints", {}) if hasattr(p, name)}
    if not all(torch.is_tensor(x) and x.numel() == 1 for x in constants.values()):
        return words
    value = {name: float(x) for name, x in constants.items()}
    frozen = {
        "LogNormal": lambda: stats.lognorm(value["scale"], scale=np.exp(value["loc"])),
        "Normal": lambda: stats.norm(value["loc"], value["scale"]),
        "HalfNormal": lambda: stats.halfnorm(scale=value["scale"]),
        "Uniform": lambda: stats.uniform(value["low"], value["high"] - value["low"]),
        "Beta": lambda: stats.beta(value["concentration1"], value["concentration0"]),
        "Gamma": lambda: stats.gamma(value["concentration"], scale=1 / value["rate"]),
        "Exponential": lambda: stats.expon(scale=1 / value["rate"]),
    }.get(kind)
    if frozen is None:
        return words + "".join(f", {name} {number(x)}" for name, x in value.items() if name != "logits")
    low, high = (number(float(f"{x:.2g}")) for x in frozen().ppf([0.05, 0.95]))
    return f"{words}, {low} to {high}"


def _many(many: int, one: str, more: str = "") -> str:
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def _here(people: Population) -> str:
    """How many agents there are, and how many of them here."""
    if people.ranks is None:
        return _many(people.size, "agent")
    return f"{people.size:,} of {_many(people.everybody, 'agent')}, rank {people.ranks.rank} of {people.ranks.count}"


def _step(many: int) -> int:
    """One in how many is read."""
    return max(1, -(-many // ALL))


def _groups(people: Population) -> dict[str, tuple[int, float, int]]:
    """Of each kind of groups, how many have members, and the mean and the largest size of these."""
    found = {}
    for name in dict.fromkeys(["household", *(str(dim) for dim in people.dataset.sizes)]):
        if name not in people.dataset or people.dataset[name].dims != ("agent",) or name == "agent":
            continue
        given = [f"{name}_members", f"{name}_size"]
        sizes = next((people.dataset[n].to_numpy() for n in given if n in people.dataset), None)
        if sizes is None:
            codes = people.dataset[name].to_numpy()
            if codes.dtype.kind not in "iu":
                continue
            sizes = _tallied(codes[codes >= 0] if codes.dtype.kind == "i" and (codes < 0).any() else codes)[1]
        if (sizes := sizes[sizes > 0]).size:
            found[name] = int(sizes.size), float(sizes.mean()), int(sizes.max())
    return found


def _variable(name: str, variable: xr.DataArray, groups: Mapping[str, tuple[int, float, int]]) -> list[str]:
    """A row about a variable."""
    units, labels = variable.attrs.get("units"), variable.attrs.get("labels")
    labels = labels if isinstance(labels, list | tuple | np.ndarray) else None
    values = variable.to_numpy().ravel()
    values = values[:: _step(values.size)]
    said, drawn = "–", ""
    if name in groups and labels is None:
        said = f"one of {groups[name][0]:,}"
    elif values.size and values.dtype.kind == "b":
        said, drawn = _shares(np.array([np.mean(~values), values.mean()]), ["no", "yes"])
    elif values.size and values.dtype.kind in "iu" and labels is not None:
        said, drawn = _shares(*_counted(values, [str(label) for label in labels]))
    elif values.size and values.dtype.kind in "iuf":
        said, drawn = _spread(values, f" <span style='{_SOFT}'>{escape(str(units))}</span>" if units else "")
    of = " × ".join(str(dim) for dim in variable.dims) or "all"
    says = str(variable.attrs.get("long_name", ""))
    return [_code(name), escape(says), escape(of), escape(str(variable.dtype)), said, drawn]


def _counted(codes: NDArray[Any], labels: list[str]) -> tuple[NDArray[Any], list[str]]:
    """The share of each label, with names for codes that have none."""
    unknown = codes.dtype.kind == "i" and bool((codes < 0).any())
    found, counts = _tallied(np.maximum(codes, -1).astype(np.int64) + 1 if unknown else codes)
    names = (["unknown"] if unknown else []) + labels
    known = found < len(names)
    share = np.zeros(len(names))
    share[found[known]] = counts[known] / codes.size
    more = [f"code {k - unknown}" for k in found[~known].tolist()]
    return np.append(share, counts[~known] / codes.size), names + more


def _tallied(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Codes of 0 or more that there are, and how often: by counting, or where they lie far apart by sorting."""
    if not codes.size or int(codes.max()) > ALL + 10 * codes.size:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _shares(share: NDArray[Any], names: Sequence[str]) -> tuple[str, str]:
    """The labels that most have, in words, and the share of each: lengths of a bar, or where they are many, heights."""
    order = [int(k) for k in np.argsort(-share, kind="stable") if share[k] > 0]
    said = ", ".join(f"{escape(_short(names[k]))} {_percent(share[k])}" for k in order[:SHOWN])
    rest = f", and {len(order) - SHOWN} more" if len(order) > SHOWN else ""
    few = len(order) <= len(COLOURS)
    parts: list[str] = []
    x = 0.0
    for k in sorted(order):
        part = float(share[k])
        wide = 160 * part if few else 160 / len(order)
        high = 12.0 if few else 13 * part / float(share.max())
        title = f"<title>{escape(names[k])}: {_percent(part)}</title>"
        colour = COLOURS[len(parts) % len(COLOURS)] if few else COLOURS[0]
        size = f"width='{max(0.3, wide - 0.8):.1f}' height='{high:.1f}'"
        parts.append(f"<rect x='{x:.1f}' y='{14 - high:.1f}' {size} fill='{colour}'>{title}</rect>")
        x += wide
    return said + rest, _drawing("share of each label", parts)


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:27].rstrip(" ,(") + "…"


def _percent(share: float) -> str:
    """A share in per cent, which says 0 and 100 of nothing and of all alone."""
    if 0.0095 <= share < 0.995 or share in (0.0, 1.0):
        return f"{100 * share:.0f}\u202f%"
    return f"{100 * share:.2g}\u202f%" if share < 0.5 else f"{min(99.9, 100 * share):.1f}\u202f%"


def _spread(values: NDArray[Any], units: str) -> tuple[str, str]:
    """The least, the mean and the greatest value, in words, and a histogram."""
    known = values
    if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
        known = values[np.isfinite(values)]
    if not known.size:
        return "none known", ""
    low, high, mean = float(known.min()), float(known.max()), float(known.mean(dtype=np.float64))
    said = f"{number(low)} … {number(float(f'{mean:.4g}'))} … {number(high)}" if high > low else f"always {number(low)}"
    said += units
    gaps = f", unknown {_percent(1 - known.size / values.size)}" if known.size < values.size else ""
    if high == low:
        return said + gaps, ""
    some = known[:: -(-known.size // SAMPLED)].astype(np.float64)
    # A few who are far above all others would press these into one bar.
    top = float(np.quantile(some, 0.99))
    top = top if top > low else high
    counts, _ = np.histogram(some.clip(max=top), BINS, (low, top))
    wide = 160 / BINS
    bars = [
        f"<rect x='{k * wide:.1f}' y='{14 - 13 * n / counts.max():.1f}' width='{wide - 0.8:.1f}' "
        f"height='{13 * n / counts.max():.1f}' fill='{COLOURS[0]}'/>"
        for k, n in enumerate(counts)
        if n
    ]
    return said + gaps, _drawing(
        f"histogram from {number(low)} to {number(float(f'{top:.4g}'))}, the last bar with all above", bars
    )


def _drawing(what: str, parts: Iterable[str]) -> str:
    head = f"<svg role='img' aria-label='{what}' width='160' height='14' viewBox='0 0 160 14'"
    return f"{head} style='vertical-align:middle'><title>{what}</title>{''.join(parts)}</svg>"


def _provenance(attrs: Mapping[Any, Any]) -> str:
    """Where a population comes from, as far as its attributes say."""
    told = {str(k): v for k, v in attrs.items() if k not in ("title", "provenance")}
    given = attrs.get("provenance")
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        read = given
    told |= (
        {str(k): v for k, v in read.items()} if isinstance(read, Mapping) else {} if read is None else {"from": read}
    )
    rows = [
        [_code(k), "<br>".join(escape(str(x)) for x in v) if isinstance(v, list | tuple) else escape(str(v))]
        for k, v in told.items()
    ]
    return _fold("where it comes from", ["", ""], rows, is_open=False)


def _word(model: Model, name: str, value: float) -> str:
    """The value of a part of the environment, in its word where it has one."""
    words = model.options.get(name)
    return str(words[int(value)]) if words and 0 <= value < len(words) else number(value)


def _values(model: Model, name: str) -> str:
    if name in model.options:
        return ", ".join(map(str, model.options[name]))
    return " to ".join(number(x) for x in model.limits[name]) if name in model.limits else "any number"


def _code(text: str) -> str:
    return f"<code style='background:none;color:inherit;padding:0'>{escape(text)}</code>"


def _page(name: str, line: str, *blocks: str) -> str:
    head = f"<div><strong style='font-size:1.15em'>{escape(name)}</strong> <span style='{_SOFT}'>{line}</span></div>"
    return f"<div style='color:inherit;font-size:13px;line-height:1.45'>{head}{''.join(blocks)}</div>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already, or nothing where there are no rows."""
    if not rows:
        return ""
    top = "".join(f"<th scope='col' style='{_CELL};{_SOFT};font-weight:600'>{cell}</th>" for cell in head)
    body = "".join(
        "<tr style='background:none'>" + "".join(f"<td style='{_CELL}'>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    style = "border-collapse:collapse;margin:4px 0;color:inherit;font-size:12.5px"
    top = f"<thead><tr style='background:none'>{top}</tr></thead>" if any(head) else ""
    return f"<table style='{style}'>{top}<tbody>{body}</tbody></table>"


def _fold(what: str, head: Sequence[str], rows: Sequence[Sequence[str]], is_open: bool | None = None) -> str:
    """A table that opens, open at once where it is short."""
    if not rows:
        return ""
    shown = " open" if (len(rows) <= FEW if is_open is None else is_open) else ""
    summary = f"<summary style='cursor:pointer;font-weight:600'>{what}</summary>"
    return f"<details{shown} style='margin:6px 0'>{summary}{_table(head, rows)}</details>"
