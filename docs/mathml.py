"""Equations as MathML, which browsers draw by themselves: the pages need no script for them and no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

log = logging.getLogger(__name__)
converter = LatexToMathML(annotation=True, fancy_error=False)

LONG = 40
"""How many letters of LaTeX a formula in a line of text may have that is no wider than a phone."""


def convert(latex: str, node: nodes.Node, displaystyle: bool = False) -> str:
    """One formula as MathML; one that has none is an error of the build, which names the page and the formula."""
    try:
        return converter.convert_with_local_state(latex, displaystyle=displaystyle)
    except LatexError as e:
        log.error("the formula %r has no MathML: %s", latex, e, location=node)
        return ""


def visit_inline(writer: Any, node: nodes.math) -> None:
    """A formula in a line of text, which no browser breaks: a long one scrolls sideways where the screen is narrow."""
    latex = node.astext()
    drawn = convert(latex, node)
    writer.body.append(f'<span class="long-math">{drawn}</span>' if len(latex) > LONG else drawn)
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own, which scrolls sideways by itself where the screen is narrow."""
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    if node["number"]:
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, node)})')
        writer.add_permalink_ref(node, _("Link to this equation"))
        writer.body.append("</span>")
    latex = node.astext()
    if r"\\" in latex and r"\begin{" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    writer.body.append(convert(latex, node, displaystyle=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; `html_math_renderer = "mathml"` takes it."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
