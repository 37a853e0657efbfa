"""The tables of the documentation that follow from the code.

`python docs/tables.py` writes them anew, between `<!-- table: … -->` and `<!-- end of table -->` in docs/*.md; a
test says when that is due.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from scipy import stats

import lpmppl as lpm
from lpmppl.effects.handlers import ExogenousNoise, Utility
from lpmppl.models import nyc, progression
from lpmppl.models.behaviour import archetypes
from lpmppl.models.model import Parameter
from lpmppl.models.pandemic import PARTS, Pandemic
from lpmppl.models.substep import Substep

DOCS = Path(__file__).parent
TABLE = re.compile(r"(<!-- table: ([\w ]+) -->)\n.*?(<!-- end of table -->)", re.S)
AGENTS = 1_000
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

PAGES = {
    "mobility": "mobility.md", "stimulus": "stimulus.md", "labour": "labour.md", "immunity": "immunity.md",
    "progression": "progression.md", "testing": "testing.md", "behaviour": "behaviour.md", "masking": "behaviour.md",
    "vaccination": "vaccination.md", "transmission": "transmission.md", "observation": "observation.md",
    "claims": "observation.md",
}  # fmt: skip

DOES = {
    "mobility": ("stringency, admissions of the week, the date", "activity at workplaces, in retail, in transit"),
    "stimulus": ("payments, who earns and who claims in each household, retail activity", "savings, what is paid"),
    "labour": ("activity at workplaces and in retail", "who has a job, who claims benefits, who is unemployed"),
    "immunity": ("earlier infections, doses, treatment", "viral loads of the archetypes, everybody's protection"),
    "progression": (
        "who was infected in the last step, doses, earlier infections",
        "stages, symptoms, admissions, deaths, who returns to risk",
    ),
    "testing": (
        "who seeks a test, who was admitted, viral loads, capacity, screening, tracing",
        "who learns of a positive test",
    ),
    "behaviour": (
        "whose symptoms began, who learnt of a test, risk, jobs, savings",
        "who isolates, who works ill, who seeks a test tomorrow",
    ),
    "masking": ("risk, advice, mandate, neighbours' masks, jobs, savings, health", "who wears a mask"),
    "vaccination": ("doses there are, the schedule, who is willing", "doses of each"),
    "transmission": (
        "viral loads, stages, isolation, masks, jobs, activity, schools, protection, who returns to risk",
        "who is infected, and when",
    ),
    "observation": ("who learnt of a test, was admitted, died", "reports that are still to come"),
    "claims": ("who filed a claim this week", "–"),
}
"""What each substep reads and writes, in words."""

KNOBS = {
    "stringency": "stringency of measures: the OxCGRT index; below 0 as recorded in New York",
    "stimulus": "dollars per adult, paid on the day on which it is set; then it is 0 again",
    "treatment": "how much of an antiviral's efficacy every infection has from its first symptoms on",
    "test": "the kind of test",
    "screening": "everybody is tested every so many days; 0 is nobody",
    "tracing": "share of the household of who learns of a positive test that is tested next",
    "capacity": "tests a day per resident, for those who seek one; below 0 as recorded in New York",
    "mask_mandate": "whether masks are required; below 0 as recorded in New York",
    "isolation_pay": "dollars a day to who isolates",
    "doses_per_day": "doses a day per resident; below 0 none before 14 December 2020 and 0.003 from then on",
    "second_dose": "when the second dose is due",
    "transmission": "factor on the transmission of every contact",
    "schools": "share of pupils in school; below 0 by the calendar and as recorded in New York",
}
"""What a policy changes."""

KEYS = {
    "mobility/workplaces": "visits to workplaces relative to before",
    "mobility/retail": "visits to retail and recreation relative to before",
    "mobility/transit": "visits to transit stations relative to before",
    "stimulus": "payment of today, dollars per adult",
    "savings": "savings in dollars",
    "unspent": "dollars of payments that it means to spend and hasn't",
    "paid": "dollars paid out in this step",
    "employed": "has a job",
    "filed": "filed a claim in this week",
    "job_changes": "how often it was laid off or hired",
    "job_hazard": "cumulative hazard of layoff, or of being hired, since the last such change",
    "claim_due": "day on which its claim is processed",
    "claiming": "draws unemployment insurance",
    "earners": "members with a job",
    "claimants": "members on unemployment insurance",
    "unemployed": "running total of the unemployed",
    "labour/activity": "activity at the last turn",
    "labour/pressure": "recent fall of activity",
    "viral_load": "log10 copies/ml of each immune archetype on each day of infection",
    "protection": "factor on susceptibility by immunity",
    "due": "day on which its stage ends",
    "stage": "stage of the disease, 0 to 8",
    "archetype": "immune archetype of its last infection",
    "active": "has an infection that isn't over",
    "destiny": "whether it will be severe, critical, fatal (bits)",
    "symptomatic": "has symptoms now",
    "onset": "its symptoms began in this step",
    "admitted": "was admitted in this step",
    "died": "died in this step",
    "returned": "recovered, and so is at risk again, since this step",
    "hospitalised": "running total in hospital",
    "admissions/week": "admissions a day per 100,000, smoothed over a week",
    "result_at": "day on which its positive result comes",
    "positive_at": "day on which it last learnt of a positive test",
    "learnt": "learnt of a positive test in this step",
    "isolating": "stays away from work, school and strangers",
    "isolate_until": "day until which it isolates",
    "isolating/total": "running total of those who isolate",
    "works_ill": "works on through its symptoms",
    "seeks_test": "seeks a test for its symptoms",
    "masked": "wears a mask in public",
    "masked/borough": "running total of masks by borough",
    "before/isolate": "what share of it isolated when it decided last, −1 before it does",
    "before/test": "the same of seeking a test",
    "before/mask": "the same of wearing a mask",
    "masked/total": "running total of masks",
    "doses": "doses of vaccine",
    "dosed_at": "day of the last dose",
    "exposure": "cumulative hazard of infection",
    "infected": "was infected in the last step",
    "infected_at": "day of its last infection",
    "susceptible": "is at risk",
    "episode": "infections so far",
    "pending/cases": "cases that await their report",
    "pending/admissions": "admissions that await their report",
    "pending/deaths": "deaths that await their report",
}
"""What the state's keys hold."""


def number(x: float) -> str:
    """A number to four digits, with powers of ten as people write them."""
    mantissa, _, power = f"{x:.4g}".partition("e")
    return f"{mantissa}·10{str(int(power)).translate(RAISED)}" if power else mantissa.replace("-", "−")


def prior(parameter: Parameter) -> str:
    """The family of a prior and the middle nine tenths of it."""
    p, name = parameter.prior, type(parameter.prior).__name__
    if name == "LogNormal":
        found, words = stats.lognorm(float(p.scale), scale=float(p.loc.exp())), "log-normal"
    elif name == "Beta":
        found, words = stats.beta(float(p.concentration1), float(p.concentration0)), "beta"
    else:
        raise ValueError(f"no words for the prior {name}; add them in {__file__}")
    low, high = (number(float(f"{x:.2g}")) for x in found.ppf([0.05, 0.95]))
    return f"{words}, {low} to {high}"


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table."""
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("$", r"\$") for cell in line) + " |" for line in lines)


def parameters(*names: str) -> str:
    """The parameters of some parts, or of all with the part's name; what two parts share stands once."""
    head = "name | what it is | default | unit | prior, middle 90 % | source"
    rows: dict[str, list[str]] = {}
    for part in PARTS:
        for name, p in part.parameters.items():
            if (not names or part.name in names) and name not in rows:
                rows[name] = [f"`{name}`", p.description, number(p.default), p.units, prior(p), p.source]
                rows[name] += [] if names else [f"[{part.name}]({PAGES[part.name]})"]
    return table(head if names else head + " | substep", list(rows.values()))


def environment(*names: str) -> str:
    """What policies may change."""
    rows = []
    for part in PARTS:
        for name, value in part.environment.items():
            if names and part.name not in names:
                continue
            if name in part.options:
                span = ", ".join(f"`{word}`" for word in part.options[name])
                begin = f"`{part.options[name][int(value)]}`"
            else:
                span = " to ".join(number(x) for x in part.limits[name])
                begin = number(value)
            rows.append(
                [f"`{name}`", KNOBS[name], begin, span] + ([] if names else [f"[{part.name}]({PAGES[part.name]})"])
            )
    head = "key | what it is | at the start | values"
    return table(head if names else head + " | substep", rows)


def tallies() -> str:
    """What is counted, as a run says it."""
    run = lpm.run(model(), days=1)["prior_predictive"].to_dataset()
    kinds = {"flow": "in the day", "stock": "at the end of the day"}
    rows = []
    for part in PARTS:
        for name, words in part.tallies.items():
            tally = run[name]
            strata = " × ".join(str(dim) for dim in tally.dims[3:])
            unit = str(tally.attrs["units"]).removesuffix(" per day")
            rows.append([f"`{name}`", words, unit, kinds[tally.attrs["kind"]], strata or "city", part.name])
    return table("tally | what | unit | counted | by | substep", rows)


@cache
def model() -> Pandemic:
    """The pandemic of a small city."""
    return nyc.pandemic(nyc.population(AGENTS))


@cache
def built() -> tuple[Substep, ...]:
    """The substeps of a day, in order."""
    return model().substeps(model().defaults())


def substeps() -> str:
    """A day, in order."""
    every = {1: "day", 7: "week"}
    rows = [
        [str(k), f"[{part.name}]({PAGES[part.name]})", part.scale, every[part.every], *DOES[part.name]]
        for k, part in enumerate(built(), 1)
    ]
    return table("  | substep | scale | every | reads | writes", rows)


def keys() -> str:
    """The state: what each key holds, of whom, and who writes and reads it."""
    with ExogenousNoise(0), Utility(model().behaviour):
        state = model().initial(model().defaults())
    people = model().population
    sizes = {
        archetypes(people).size: "archetype",
        archetypes(people).size * people.network("borough").count: "archetype × borough",
        people.size: "agent", people.dataset.sizes["household"]: "household", 1: "city",
        model().by.count: "borough × age", people.network("borough").count: "borough",
    }  # fmt: skip
    written = [(key, part.name) for part in built() for key in part.writes]
    rows = []
    for key, writer in written:
        readers = [part.name for part in built() if key in part.reads and part.name != writer]
        size = state[key].shape[-1]
        rows.append([f"`{key}`", KEYS[key], sizes.get(size, f"{size:,}"), writer, ", ".join(readers) or "–"])
    return table("key | holds | of each | written by | read by", rows)


def risks() -> str:
    """What the course of the disease is by age."""
    columns = progression.CLINICAL, progression._HOSPITAL, progression._INTENSIVE
    bands = [f"{10 * k}–{10 * k + 9}" for k in range(8)] + ["80+"]
    rows = [[band, *(number(column[k]) for column in columns)] for k, band in enumerate(bands)]
    return table("age | with symptoms, of infections | admitted, of those | in intensive care, of those", rows)


def periods() -> str:
    """How long each wait is."""
    words = {
        "ASYMPTOMATIC": "asymptomatic to recovered", "MILD": "onset to recovered", "TO_HOSPITAL": "onset to admission",
        "TO_DEATH_AT_HOME": "onset to death outside hospital", "TO_INTENSIVE": "admission to intensive care",
        "SEVERE": "admission to recovered, without intensive care", "TO_DEATH": "intensive care to death",
        "CRITICAL": "intensive care to recovered",
    }  # fmt: skip
    rows = [
        [words[leg.name], *(number(x) for x in period)]
        for leg, period in zip(progression._Leg, progression._PERIODS, strict=True)
    ]
    return table("wait | mean, days | standard deviation, days", rows)


TABLES: dict[str, Callable[..., str]] = {
    f.__name__: f for f in (substeps, parameters, environment, tallies, keys, risks, periods)
}


def filled(text: str) -> str:
    """A page with its tables as the code has them."""

    def fill(found: re.Match[str]) -> str:
        name, *arguments = found[2].split()
        return f"{found[1]}\n\n{TABLES[name](*arguments)}\n\n{found[3]}"

    return TABLE.sub(fill, text)


def pages() -> list[Path]:
    """The pages with such tables."""
    return [page for page in sorted(DOCS.glob("*.md")) if TABLE.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.name)
