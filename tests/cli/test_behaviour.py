"""What a language model would be asked is shown, and counted, without one."""

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]
SMALL = ("--agents", "1000", "--days", "8")


def test_prompts_are_shown_as_a_model_would_read_them(here: Run) -> None:
    shown = here("behaviour", "show", "nyc", "--decision", "mask", "--most", "2", *SMALL)
    assert shown.out.count("── mask ──") == 2
    assert shown.out.count("Do you wear a mask in public this week?") == 2
    assert "vaccine" not in shown.out
    every = here("behaviour", "show", "nyc", "--most", "1", *SMALL, "--json").json
    assert {"mask", "vaccinate"} <= set(every)
    assert all(len(prompts) == 1 for prompts in every.values())


def test_the_cost_is_counted_before_anything_is_asked(here: Run) -> None:
    one, ten = (here("behaviour", "cost", "nyc", *SMALL, "--samples", m, "--json").json for m in ("1", "10"))
    assert ten["queries"] == 10 * one["queries"] > 1000
    assert ten["tokens"] == 10 * one["tokens"]
    assert abs(ten["seconds"] - ten["queries"] / 8) < 0.1
    assert ten["archetypes"] == one["archetypes"]
    said = here("behaviour", "cost", "nyc", *SMALL, "--samples", "10", "--seconds", "4", "--at-once", "2").out
    assert said.startswith(f"{ten['queries']:,} queries")
    assert f"{2 * ten['queries']:,} s where each takes 4 s" in said


def test_a_decision_that_there_is_not_is_refused(here: Run) -> None:
    assert "decision 'masking'" in here("behaviour", "show", "nyc", "--decision", "masking").refused()
    few = ("--agents", "1000", "--days", "1")
    assert (
        "nobody has anything to decide about 'isolate'"
        in here("behaviour", "show", "--decision", "isolate", *few).refused()
    )
    assert "models that are made so" in here("behaviour", "show", "--decision", "outing", *few).refused()
    assert "population 'nyx'" in here("behaviour", "cost", "nyx").refused()
    assert "--seconds inf" in here("behaviour", "cost", "--seconds", "inf", *few).refused()
