"""What of the numbers that are observed a template's text depends on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from jinja2 import Environment, nodes

__all__ = ["parted"]

_FILTERS = frozenset(("about", "percent", "expm1", "abs", "round", "int", "float", "string", "default", "format"))
_TESTS = frozenset(("odd", "even", "divisibleby", "defined", "none", "number", "integer", "float", "eq", "ne", "lt"))
_TESTS |= {"le", "gt", "ge", "==", "!=", "<", "<=", ">", ">=", "lessthan", "greaterthan", "equalto"}
"""Filters and tests that give the same of the same."""

_IMPLIED = frozenset(("loop", "caller", "varargs", "kwargs", "self", "super"))
"""Names that Jinja binds by itself."""


def parted(environment: Environment, template: str, observed: Collection[str]) -> Callable[[Mapping[str, float]], str]:
    """A function of what is observed that differs wherever the template's text may.

    Of a template, the largest expressions of observed numbers alone are taken, such as `risk | expm1 | about` or
    `fatigue > 0.5`: the text depends on the numbers through the values of these. Of a condition it matters only whether
    it holds. Where a template has blocks that are beyond this, such as macros, or an expression fails, all numbers are
    taken as they are.

    Args:
        environment: Jinja's, with the template's filters.
        template: the template, which must be without fault.
        observed: the names of the fields that are numbers.

    >>> from jinja2 import Environment
    >>> template = "{% if risk > 2 %}high, {{ options[0] }}{% endif %} {{ share | round }}"
    >>> key = parted(Environment(), template, ["risk", "share"])
    >>> key({"risk": 3.0, "share": 0.2}) == key({"risk": 9.0, "share": 0.4}) != key({"risk": 1.0, "share": 0.2})
    True
    """
    from jinja2 import nodes
    from jinja2.environment import TemplateExpression

    tree = environment.parse(template)
    fields = sorted({n.name for n in tree.find_all(nodes.Name)} & set(observed))
    beyond: tuple[type[nodes.Node], ...]
    beyond = (nodes.Macro, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Block)
    bound = {n.name for n in tree.find_all(nodes.Name) if n.ctx != "load"} | _IMPLIED
    if any(tree.find(kind) is not None for kind in beyond):
        bound |= set(fields)
    parts: list[nodes.Expr] = [nodes.Name(n, "load") for n in fields if n in bound]
    _collect(tree, frozenset(fields) - bound, parts)
    whole = nodes.Tuple(parts, "load")
    body = nodes.Template([nodes.Assign(nodes.Name("result", "store"), whole)])
    body.set_environment(environment)
    body.set_lineno(1, override=True)
    values = TemplateExpression(environment.from_string(body), False)

    def key(numbers: Mapping[str, float]) -> str:
        mine = {n: numbers[n] for n in fields}
        try:
            return repr(values(mine))
        except Exception:  # noqa: BLE001
            # A template is a program: what it raises may be anything, and where this isn't reached it raises nothing.
            return repr(mine)

    return key


def _collect(node: nodes.Node, fields: Collection[str], parts: list[nodes.Expr]) -> None:
    """Add the largest expressions of these fields alone that are below a node."""
    from jinja2 import nodes

    if isinstance(node, nodes.Expr) and _alone(node, fields):
        _add(node, parts)
        return
    for child in node.iter_child_nodes():
        condition = isinstance(node, nodes.If | nodes.CondExpr) and child is node.test
        if condition and _alone(child, fields):
            _add(nodes.Not(child), parts)
        else:
            _collect(child, fields, parts)


def _add(part: nodes.Expr, parts: list[nodes.Expr]) -> None:
    from jinja2 import nodes

    named = isinstance(part, nodes.Name) or part.find(nodes.Name) is not None
    # Not by ==: a template may tell 1 from 1.0, which are equal.
    if named and repr(part) not in map(repr, parts):
        parts.append(part)


def _alone(node: nodes.Node, fields: Collection[str]) -> TypeGuard[nodes.Expr]:
    """Whether a node is made of these fields, constants and what gives the same of the same."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        return node.name in fields
    if isinstance(node, nodes.Filter):
        fits = node.node is not None and node.name in _FILTERS and not (node.dyn_args or node.dyn_kwargs)
    elif isinstance(node, nodes.Test):
        fits = node.name in _TESTS and not (node.dyn_args or node.dyn_kwargs)
    else:
        kinds = (nodes.Const, nodes.BinExpr, nodes.UnaryExpr, nodes.Compare, nodes.Operand, nodes.CondExpr)
        fits = isinstance(node, (*kinds, nodes.Concat, nodes.Keyword))
    return fits and all(_alone(child, fields) for child in node.iter_child_nodes())
