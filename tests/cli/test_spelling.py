"""Every number that is written out is read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpmppl.cli import spelling
from lpmppl.cli.settings import plain
from lpmppl.errors import InputError

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(NAMES, NUMBERS, max_size=4))
def test_settings_come_back(values: dict[str, float]) -> None:
    assert spelling.settings([f"{k}={v!r}" for k, v in values.items()]) == values


@given(st.lists(st.tuples(NAMES, NUMBERS, st.integers(0, 1000)), max_size=4, unique_by=lambda act: (act[0], act[2])))
def test_interventions_come_back(acts: list[tuple[str, float, int]]) -> None:
    assert spelling.interventions([f"{n}={v!r}@{d}" for n, v, d in acts]) == acts


def test_settings_are_written_as_they_are_given() -> None:
    assert plain(spelling.settings(["beta=0.3"])) == "beta=0.3"
    assert plain(tuple(spelling.interventions(["transmission=0.3@20"]))) == "transmission=0.3@20"


def test_a_trigger_may_say_from_when_it_is_looked_at() -> None:
    (policy,) = spelling.policies(["shut: stringency=80@admissions/week>5<2@20, mask_mandate=1@infectious>9"])
    later, first = policy.acts
    assert (later.name, later.day, later.value.when, later.value.until) == (
        "stringency",
        20,
        ("admissions/week", 5.0),
        ("admissions/week", 2.0),
    )
    assert (first.name, first.day, first.value.until) == ("mask_mandate", 0, None)


@pytest.mark.parametrize("text", ["x=1@k>", "x=1@k>5<2@", "x=1@k>5@x", "x=1@k>5@-3", "x@k>5", "x=1@k>5<2<1", "x=1@k<2"])
def test_a_trigger_that_cant_be_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--do"):
        spelling.policies([text])
