"""What people write, prompts and words on a command line: it is understood, or refused on purpose."""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st

from lpmppl.cli import spelling
from lpmppl.effects.language.prompts import Prompt
from tests.hardening.strategies import CELLS, Shown, fuzz, many, read_or_refused

TEMPLATE = (
    "You are {{ age }} years old.{% if risk > 0.5 %} Risk: {{ risk | expm1 | about }}.{% endif %} "
    "{% for o in options %}{{ loop.index }}. {{ o }} {% endfor %}"
)
MARKS = ("{{", "}}", "{%", "%}", "{#", "| nothing", "| about", "risk.x.y", "age[0]", "options[9]", "1/0", "'", "(", ")")


@many(20, 600)
def test_a_damaged_prompt(many: int, shown: Shown) -> None:
    edits = st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([*MARKS, *CELLS[:30], "{% for x in y %}"])),
        max_size=3,
    )

    def check(drawn: list[tuple[float, int, str]]) -> None:
        template = TEMPLATE
        for place, lost, new in drawn:
            at = int(place * len(template))
            template = template[:at] + new + template[at + lost :]

        def ask() -> None:
            prompt = Prompt("go", template)
            prompt.key({"risk": 0.7})
            prompt.text({"age": "old"}, {"risk": 0.7}, ("yes", "no"))
            prompt.check(["age", "risk", "options"])

        read_or_refused(ask, one_line=False)

    fuzz(edits, check, many, shown)


words = st.one_of(
    st.sampled_from(
        [*CELLS[:36], "beta=0.3", "transmission=0.3@20", "test=antigen@0", "stimulus=500@30", "a: b=1@2, c=2@3",
         "x=1@y>2<1", "x=1@y>2<1@5", "puma,age=age_band", "age=", "=1@2", "beta=", "x=1@", "x=@3", "x=1@y>",
         "x=1@y>inf"]
    ),
    st.text(max_size=12),
    st.text(alphabet="abx=@<>:,. -0123456789e_/", max_size=24),
)  # fmt: skip


@many(60, 1200)
def test_what_is_spelled_on_a_command_line(many: int, shown: Shown) -> None:
    def check(texts: list[str]) -> None:
        for read in (spelling.settings, spelling.interventions, spelling.strata, spelling.policies):
            read_or_refused(partial(read, texts), one_line=False)

    fuzz(st.lists(words, min_size=1, max_size=3), check, many, shown)
