"""What industries use of each other's products: a small input–output table of the United States."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError

__all__ = ["UNITED_STATES", "Industries"]


_MOST_OUTPUT, _MOST_USED, _MOST_DAYS, _ROUNDING = 1e6, 0.99, 365, 1e-9
"""The most billions of dollars, share of an output used up, and days of transport that can be meant, and what of a
product may seem to be missing by rounding."""


@dataclass(frozen=True, eq=False)
class Industries:
    """Industries with what they use of each other's products, each industry making one.

    Args:
        labels: the industries, S names.
        requirements: direct requirements A, shape (S, S): what the industry of a column uses of the product of a row,
            imported or not, in dollars per dollar of its output.
        output: gross output at home, billions of dollars a year, shape (S,).
        imported: the share of a product's supply that is imported, shape (S,), in [0, 1).
        essential: whether nothing can be made without a product where it is used, shape (S,).
        stocked: whether a product can be held in stock, shape (S,); of others a few days' use is.
        delay: days from shipment to arrival, shape (S,), 1 to 365.
        firms: the share of all firms in each industry, shape (S,), which add up to 1.
        name: what the table is of.
    Raises:
        InputError: for names that aren't distinct words, shapes that don't match, numbers that can't be, a column that
            uses up more than 0.99 of its output, or a product of which more is used than there is.

    >>> round(float(UNITED_STATES.requirements[:, UNITED_STATES.labels.index("food")].sum()), 2)
    0.7
    """

    labels: Sequence[str]
    requirements: NDArray[np.float64]
    output: NDArray[np.float64]
    imported: NDArray[np.float64]
    essential: NDArray[np.bool_]
    stocked: NDArray[np.bool_]
    delay: NDArray[np.int64]
    firms: NDArray[np.float64]
    name: str = "industries"
    supply: NDArray[np.float64] = field(init=False)
    """All there is of each product, made at home or imported, billions of dollars a year, shape (S,)."""

    def __post_init__(self) -> None:
        self._set("labels", _words(self.labels))
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"name={self.name!r} was given; say in words what the table is of")
        a = self._numbers("requirements", "dollars per dollar of output, 0 or more and below 1", 2)
        self._numbers("output", f"billions of dollars, 0 to {_MOST_OUTPUT:g}", below=_MOST_OUTPUT * (1 + _ROUNDING))
        self._numbers("imported", "shares, 0 or more and below 1")
        firms = self._numbers("firms", "shares that add up to 1", below=1 + _ROUNDING)
        for name in ("essential", "stocked"):
            self._numbers(name, "True or False", below=2, kind=np.bool_)
        self._numbers("delay", f"whole days, 1 to {_MOST_DAYS}", least=1, below=_MOST_DAYS + 1, kind=np.int64)
        if abs(firms.sum() - 1) > 1e-3:
            raise InputError(f"firms= adds up to {firms.sum():g}; give the share of all firms in each industry")
        if float(a.sum(0).max()) > _MOST_USED:
            much = int(a.sum(0).argmax())
            raise InputError(
                f"'{self.labels[much]}' uses {a.sum(0)[much]:g} dollars per dollar of its output; give requirements "
                f"that sum to {_MOST_USED:g} or less in each column"
            )
        self._set("supply", self.output / (1 - self.imported))
        left = self.supply - a @ self.output
        if bool((left < -_ROUNDING * self.supply).any()):
            short = self.labels[int(left.argmin())]
            raise InputError(f"more of '{short}' is used than there is; give it more output, or lower requirements")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _numbers(
        self, name: str, such: str, dims: int = 1, *, least: float = 0.0, below: float = 1.0, kind: Any = np.float64
    ) -> NDArray[Any]:
        """Keep one of the arrays as numbers of a kind that nobody can change; refuse it where it can't be."""
        given, shape = getattr(self, name), (len(self.labels),) * dims
        try:
            found = np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as e:
            raise InputError(f"{name}={_shown(given)} was given; give {such}, an array of shape {shape}") from e
        if found.shape != shape or found.dtype.kind not in "biuf":
            raise InputError(
                f"{name} of shape {found.shape} and kind {found.dtype} was given for {shape[0]} industries; give "
                f"{such}, an array of shape {shape}"
            )
        wrong = ~((found >= least) & (found < below))
        if kind != np.float64:
            wrong |= found != np.floor(found.astype(np.float64))
        if wrong.any():
            at = np.argwhere(wrong)[0]
            where = " in ".join(f"'{self.labels[k]}'" for k in at)
            raise InputError(f"{name} of {where} is {found[tuple(at)]:g}; give {such}")
        found = found.astype(kind)
        found.setflags(write=False)
        self._set(name, found)
        return found

    @property
    def final(self) -> NDArray[np.float64]:
        """What of each product isn't used up by industries: consumption, investment and exports, shape (S,)."""
        return np.maximum(self.supply - self.requirements @ self.output, 0.0)

    def followed(self, least: float) -> Industries:
        """The same without inputs of less than so many dollars per dollar of output."""
        return replace(self, requirements=np.where(self.requirements >= least, self.requirements, 0.0))


def _words(labels: object) -> tuple[str, ...]:
    """Names of industries, distinct and in an order of their own."""
    found = tuple(labels) if isinstance(labels, Sequence | np.ndarray) and not isinstance(labels, str) else ()
    if not found or not all(isinstance(x, str) and x.strip() for x in found):
        raise InputError(f"labels={_shown(labels)} was given; give the names of one industry or more, in a list")
    if twice := [x for x in found if found.count(x) > 1]:
        raise InputError(f"two industries are called '{twice[0]}'; give each a name of its own")
    return found


def _shown(value: object) -> str:
    words = " ".join(repr(value).split())
    return words if len(words) <= 60 else f"{words[:59]}…"


# fmt: off
_USES = """
             farms mining utilities construction food fuels chemicals materials machinery vehicles trade transport business other
farms         .22   0      0         0            .23  0     .01       .01       0         0        0     0         0        0
mining        0     .08    .06       .01          0    .49   .01       .01       0         0        0     0         0        0
utilities     .01   .02    .06       0            .01  .02   .02       .02       0         0        .01   .01       .01      .01
construction  0     .01    .02       0            0    .01   0         0         0         0        0     0         .01      .01
food          .07   0      0         0            .17  0     0         0         0         0        0     0         0        .02
fuels         .02   .02    .04       .03          0    .03   .01       0         0         0        0     .05       0        .01
chemicals     .06   .02    0         .03          .03  .03   .27       .04       .02       .04      .01   0         .01      .02
materials     .01   .04    0         .13          .06  .01   .04       .26       .10       .13      .01   .01       .01      .01
machinery     .01   .04    0         .05          .01  0     .02       .02       .10       .07      .01   .01       .01      .01
vehicles      0     0      0         0            0    0     0         0         .01       .29      0     .01       0        .01
trade         .10   .03    .02       .10          .07  .03   .07       .07       .05       .08      .03   .03       .01      .02
transport     .03   .03    .06       .02          .05  .06   .03       .05       .01       .01      .04   .11       .01      .01
business      .09   .21    .13       .09          .06  .06   .08       .09       .09       .06      .25   .19       .28      .20
other         0     0      .02       .01          .01  .01   .01       .01       0         0        .02   .04       .03      .04
"""  # noqa: E501
"""Dollars of the row's product, imported or not, per dollar of the column's output."""

_LABELS, *_ROWS = (line.split() for line in _USES.strip().splitlines())

#                   output imported essential stocked delay firms
_EACH = {
    "farms":        (440,     .12,    True,     True,   3,    .040),
    "mining":       (590,     .20,    True,     True,   3,    .005),
    "utilities":    (560,     0,      True,     False,  1,    .005),
    "construction": (1720,    0,      False,    False,  1,    .120),
    "food":         (980,     .09,    True,     True,   3,    .007),
    "fuels":        (600,     .10,    True,     True,   3,    .002),
    "chemicals":    (1070,    .25,    True,     True,   3,    .006),
    "materials":    (1290,    .27,    True,     True,   3,    .020),
    "machinery":    (1070,    .43,    True,     True,   3,    .010),
    "vehicles":     (1060,    .28,    True,     True,   3,    .004),
    "trade":        (4050,    0,      False,    False,  1,    .160),
    "transport":    (1360,    .02,    False,    False,  1,    .035),
    "business":     (13460,   .02,    False,    False,  1,    .320),
    "other":        (9470,    0,      False,    False,  1,    .266),
}
# fmt: on

_OUTPUT, _IMPORTED, _ESSENTIAL, _STOCKED, _DELAY, _FIRMS = (
    np.array(column) for column in zip(*(_EACH[label] for label in _LABELS), strict=True)
)

UNITED_STATES = Industries(
    _LABELS,
    np.array([row[1:] for row in _ROWS], dtype=np.float64),
    _OUTPUT,
    _IMPORTED,
    _ESSENTIAL,
    _STOCKED,
    _DELAY,
    _FIRMS,
    name="the United States, 2019",
)
"""Fourteen industries of the United States in 2019.

Requirements, output and imports are those of the Bureau of Economic Analysis's Use table (summary level, 2019,
producers' prices, before redefinitions), its industries and commodities added up and rounded to 0.01, output to $10
billion. With the table's codes:

- farms 111CA 113FF; mining 211 212 213; utilities 22; construction 23; food 311FT; fuels 324; chemicals 325 326;
- materials (textiles, wood, paper, printing, minerals, metals and furniture) 313TT 315AL 321 322 323 327 331 332 337;
- machinery (with electronics) 333 334 335 339; vehicles 3361MV 3364OT; trade 42 441 445 452 4A0;
- transport (with storage) 481 to 487OS 493; business (information, finance, real estate, services) 511 to 562, HS, ORE;
- other (education, health, leisure, households, government) 61 to 81, all of government.

Scrap and imports that compare with nothing made at home are left out: 0.2 to 2.1 % of what a column uses. Value added
comes to $21.7 trillion (published: $21.4 trillion; the rest is rounding, and what is left out). What is essential, what
can be stocked, the days of transport and the shares of firms aren't in the table; they are chosen.
"""
