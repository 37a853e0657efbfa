"""What industries use of each other's products: a small input–output table of the United States."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError

__all__ = ["UNITED_STATES", "Industries"]


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
        delay: days from shipment to arrival, shape (S,), 1 or more.
        firms: the share of all firms in each industry, shape (S,).
        name: what the table is of.
    Raises:
        InputError: for shapes that don't match, a column that uses up its whole output, or a product of which more is
            used than there is.

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
        many, a = len(self.labels), np.asarray(self.requirements, dtype=np.float64)
        for name in ("output", "imported", "essential", "stocked", "delay", "firms"):
            if np.shape(getattr(self, name)) != (many,):
                raise InputError(f"{name} of shape {np.shape(getattr(self, name))} was given for {many} industries")
        if a.shape != (many, many) or not bool(((a >= 0) & (a < 1)).all()) or not bool((a.sum(0) < 1).all()):
            raise InputError(
                f"requirements of shape {a.shape} with column sums {np.round(a.sum(0), 2).tolist()} were given for "
                f"{many} industries; give shares of 0 or more that sum to less than 1 in each column"
            )
        if not bool(((self.imported >= 0) & (self.imported < 1)).all()) or int(np.min(self.delay)) < 1:
            raise InputError("imported must be shares in [0, 1) and delay 1 day or more")
        object.__setattr__(self, "requirements", a)
        object.__setattr__(self, "supply", self.output / (1 - self.imported))
        if not bool((self.final >= 0).all()):
            short = self.labels[int(self.final.argmin())]
            raise InputError(f"more of '{short}' is used than there is; give it more output, or lower requirements")

    @property
    def final(self) -> NDArray[np.float64]:
        """What of each product isn't used up by industries: consumption, investment and exports, shape (S,)."""
        return np.asarray(self.supply - self.requirements @ self.output)

    def followed(self, least: float) -> Industries:
        """The same without inputs of less than so many dollars per dollar of output."""
        kept = np.where(self.requirements >= least, self.requirements, 0.0)
        columns = ("output", "imported", "essential", "stocked", "delay", "firms")
        return Industries(self.labels, kept, name=self.name, **{c: getattr(self, c) for c in columns})


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
