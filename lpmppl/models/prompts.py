"""What New Yorkers are asked of where a language model decides for them: a template for each decision."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPTIONAL", "PROMPTS"]

_PERSONA = """\
You live in New York City during the COVID-19 pandemic of 2020 and 2021.
Your age: {{ age }}. Your household's income a year: {{ income }}.
{% if employment == "employed" %}
You have a job. Your occupation: {{ occupation }}.
{% else %}
You have no job.
{% endif %}
"""

_SAVINGS = "Your household has {{ savings }} in savings.\n"

_RISK = """\
In the last week about {{ risk | expm1 | about }} in 100,000 New Yorkers went to a hospital with COVID-19 each day.
"""

_TIRED = """\
{% if fatigue > 0.5 %}
You have lived with restrictions for many months, and are tired of them.
{% elif fatigue > 0.15 %}
You have lived with restrictions for some weeks.
{% endif %}
"""

_HEALTH = """\
{% if health == "symptomatic" %}
You feel ill, with symptoms of COVID-19.
{% elif health == "tested positive" %}
You have just tested positive for COVID-19.
{% endif %}
"""

# In five words, so that a question is a new one only where people have changed their minds.
_AGAIN = """\
{% if again %}
When people like you last had this to decide, {{
    "hardly any" if before < 0.1 else "some" if before < 0.4 else "about half" if before < 0.6
    else "most" if before < 0.9 else "nearly all"
}} of them chose to {{ options[0] }}.
{% endif %}
"""

_ANSWER = """
Answer with one of: {{ options | join(", ") }}.
Answer:"""

PROMPTS: Mapping[str, str] = {
    "mask": _PERSONA
    + _SAVINGS
    + _HEALTH
    + _RISK
    + """\
{% if advice %}
The authorities advise everybody to wear a mask in public.
{% endif %}
{% if mandate %}
Masks are mandatory wherever people can't keep apart.
{% endif %}
About {{ neighbours | percent }} of the people in your borough wear one.
"""
    + _AGAIN
    + """\
Do you wear a mask in public this week?"""
    + _ANSWER,
    "isolate": _PERSONA
    + _SAVINGS
    + _HEALTH
    + _RISK
    + _TIRED
    + _AGAIN
    + """\
Do you isolate at home for ten days, away from work, school and strangers, or do you go on as usual?"""
    + _ANSWER,
    "test": _PERSONA
    + _SAVINGS
    + _RISK
    + _TIRED
    + _AGAIN
    + """\
You have fallen ill today, with symptoms of COVID-19. Do you seek a test?"""
    + _ANSWER,
    "outing": _PERSONA
    + _SAVINGS
    + _HEALTH
    + _RISK
    + """\
{% if stringency >= 0.75 %}
Everybody is ordered to stay at home; shops and restaurants are closed.
{% elif stringency >= 0.5 %}
Shops and restaurants are open in part, with rules to keep apart.
{% elif stringency >= 0.25 %}
The authorities advise against crowded places.
{% endif %}
"""
    + _TIRED
    + _AGAIN
    + """\
Do you go out to shops, restaurants and the like this week as you used to, or do you stay in?"""
    + _ANSWER,
    "spend": _PERSONA
    + _SAVINGS
    + _RISK
    + _AGAIN
    + """\
The government has sent every adult a payment of ${{ payment | round | int }}.
In the coming weeks, do you spend it, or save it and pay off debts?"""
    + _ANSWER,
    "vaccinate": _PERSONA
    + """\
If a vaccine against COVID-19 were offered to you free of charge, would you accept or refuse it?"""
    + _ANSWER,
}
"""The template of each decision, in Jinja's language: the fields are `archetypes`' attributes and what is observed."""

OPTIONAL = ("outing", "spend")
"""Decisions that are only taken in a pandemic with `going_out=True`, or `negotiated=True`."""
