"""Every number that is written out is read back."""

from hypothesis import given
from hypothesis import strategies as st

from lpmppl.cli import spelling
from lpmppl.cli.settings import plain

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
