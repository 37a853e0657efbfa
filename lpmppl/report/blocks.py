"""The blocks that a page is set from: sections, tables, lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from lpmppl.report.axes import number

__all__ = ["facts", "fold", "join", "listed", "plain", "prose", "section", "subhead", "table"]


def section(title: str, body: str) -> str:
    """Set a body under a heading; nothing where it is empty."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def fold(title: str, body: str) -> str:
    """Fold a body away under a line that opens it; nothing where it is empty."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def table(head: Iterable[str], body: Iterable[str], caption: str, kind: str = "") -> str:
    """Set a table that scrolls sideways where it is wider than the page."""
    columns = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="{kind}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="caption">{escape(caption)}</p>'
    )


def subhead(title: str, columns: int) -> str:
    """Set a row that names the rows below it."""
    return f'<tr><th class="group" colspan="{columns}" scope="colgroup">{escape(title)}</th></tr>'


def facts(entries: Mapping[str, object]) -> str:
    """Set names and values side by side; entries without a value are left out."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in entries.items() if v not in ("", None))
    return f'<dl class="facts">{items}</dl>'


def plain(value: object) -> str:
    """Write a value of the provenance as HTML: a list or a mapping as a list."""
    if isinstance(value, Mapping):
        value = [f"{k}: {v}" for k, v in value.items()]
    if isinstance(value, list | tuple):
        return f"<ul>{''.join(f'<li>{escape(str(v))}</li>' for v in value)}</ul>"
    return number(value) if isinstance(value, int) else escape(str(value))


def prose(text: str) -> str:
    """Write text that may break into lines, but not before a percent sign.

    >>> prose("−3.1 % & more") == "−3.1\u00a0% &amp; more"
    True
    """
    return escape(text).replace(" %", "\u00a0%")


def listed(texts: Sequence[str]) -> str:
    """Set sentences as a list; nothing where there are none."""
    items = "".join(f"<li>{prose(text)}</li>" for text in texts)
    return f'<ul class="told">{items}</ul>' if items else ""


def join(phrases: Sequence[str]) -> str:
    """Join phrases as a sentence does.

    >>> join(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
