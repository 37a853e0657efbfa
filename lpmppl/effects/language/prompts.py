"""Prompts: what a language model is told of an archetype and of what it observes, and asked to choose among."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from lpmppl.effects.language.parts import parted
from lpmppl.errors import InputError, LpmError, nearest

__all__ = ["Prompt", "about", "percent"]


def about(x: float) -> str:
    """A number in words that don't change with every day: to one significant digit, and 0 below a tenth.

    >>> about(0.03), about(0.26), about(0.97), about(3.7), about(187.0)
    ('0', '0.3', '1', '4', '200')
    """
    if abs(x) < 0.1:
        return "0"
    rounded = float(f"{x:.1g}")
    return f"{rounded:.0f}" if abs(rounded) >= 1 else f"{rounded:g}"


def percent(x: float) -> str:
    """A share in words that don't change with every day: to tenths.

    >>> percent(0.27), percent(1.0)
    ('30 %', '100 %')
    """
    return f"{round(10 * x) * 10} %"


class Prompt:
    """The template of one decision's prompts, in Jinja's language.

    Its fields are the attributes of the archetype in words, what is observed, as numbers, and `options`, a list. The
    filters `about` and `percent` round numbers, so that a question is a new one only where something has changed that
    matters: `{{ risk | expm1 | about }}`.

    Args:
        decision: the decision's name.
        template: the template.
    Raises:
        InputError: for a template that can't be read.
        LpmError: where Jinja isn't installed.
    """

    def __init__(self, decision: str, template: str) -> None:
        try:
            from jinja2 import StrictUndefined, TemplateSyntaxError, meta
            from jinja2.sandbox import SandboxedEnvironment
        except ImportError as e:
            raise LpmError("prompts need Jinja: pip install 'lpmppl[llm]'") from e
        if not isinstance(template, str):
            raise InputError(
                f"the prompt of decision '{decision}' is a {type(template).__name__}; give a template as text"
            )
        self.decision, self.template = decision, template
        self._keys: dict[tuple[str, ...], Callable[[Mapping[str, float]], str]] = {}
        environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        # Names that Jinja knows by itself would hide fields; and a run's chance isn't Python's.
        environment.globals.clear()
        environment.filters.pop("random")
        environment.filters |= {"about": about, "percent": percent, "expm1": math.expm1}
        self._environment = environment
        try:
            self.fields = sorted(meta.find_undeclared_variables(environment.parse(template)))
            self._compiled = environment.from_string(template)
        except TemplateSyntaxError as e:
            raise InputError(f"the prompt of decision '{decision}', line {e.lineno}: {e.message}") from e
        except Exception as e:
            # Jinja takes some templates to Python that Python doesn't take.
            raise InputError(f"the prompt of decision '{decision}' can't be read ({e}): correct it") from e

    @cached_property
    def version(self) -> str:
        """What tells this template from others: the first twelve digits of its SHA-256."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:12]

    def check(self, known: Collection[str]) -> None:
        """Refuse a template with a field that isn't known, naming the nearest."""
        for field in self.fields:
            if field not in known:
                raise InputError(nearest(f"field in the prompt of decision '{self.decision}'", field, known))

    def key(self, observed: Mapping[str, float]) -> str:
        """What of the numbers that are observed the text depends on: two with the same key read alike.

        Where a template rounds a number, all that are rounded alike have the same key.

        >>> prompt = Prompt("mask", "{{ age }}: {{ risk | about }}{% if advice %}, advised{% endif %}")
        >>> prompt.key({"risk": 3.2, "advice": 1.0}) == prompt.key({"risk": 2.8, "advice": 1.0})
        True
        """
        names = tuple(observed)
        if names not in self._keys:
            self._keys[names] = parted(self._environment, self.template, names)
        return self._keys[names](observed)

    def text(self, words: Mapping[str, str], observed: Mapping[str, float], options: Sequence[str]) -> str:
        """What the language model is told and asked.

        Args:
            words: what the archetype is, by attribute.
            observed: what it observes, by name.
            options: what it can choose.
        Raises:
            InputError: for a template that can't be filled in.
        """
        values: dict[str, Any] = {**words, **observed, "options": list(options)}
        try:
            return self._compiled.render(values).strip()
        except Exception as e:
            # A template is a program: what it raises may be anything.
            raise InputError(
                f"the prompt of decision '{self.decision}' can't be filled in: {e or type(e).__name__}"
            ) from e
