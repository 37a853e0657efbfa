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
    0.76
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
farms         .18   0     0         0            .30  0     .01       .02       0         0        0     0         0        0
mining        .01   .08   .12       .01          0    .58   .03       .04       0         0        0     0         0        0
utilities     .02   .01   .01       0            .02  .01   .02       .03       .01       .01      .01   .01       0        .01
construction  .01   .01   .02       0            0    0     0         0         0         0        0     .01       .02      .02
food          .07   0     0         0            .17  0     .01       0         0         0        0     0         0        .04
fuels         .04   .02   .02       .03          .01  .06   .05       .01       0         0        .01   .10       0        .01
chemicals     .08   .03   0         .03          .03  .02   .22       .05       .03       .04      .01   0         0        .04
materials     .01   .06   .01       .16          .05  0     .03       .25       .16       .14      .01   0         .01      .02
machinery     .01   .05   .01       .05          0    0     0         .02       .15       .07      0     0         .01      .02
vehicles      0     0     0         0            0    0     0         0         .01       .27      .01   .03       0        .01
trade         .06   .02   .01       .07          .06  .03   .06       .05       .05       .07      .03   .04       .01      .03
transport     .03   .04   .06       .02          .04  .04   .03       .03       .01       .02      .05   .12       .01      .02
business      .09   .14   .11       .10          .08  .05   .12       .08       .11       .07      .24   .15       .24      .15
other         0     0     .01       0            0    0     0         0         0         0        .02   .02       .03      .02
"""  # noqa: E501
"""Dollars of the row's product, imported or not, per dollar of the column's output."""

_LABELS, *_ROWS = (line.split() for line in _USES.strip().splitlines())

#                   output imported essential stocked delay firms
_EACH = {
    "farms":        (450,    .12,   True,     True,   3,    .040),
    "mining":       (560,    .15,   True,     True,   3,    .005),
    "utilities":    (480,    0,     True,     False,  1,    .005),
    "construction": (1670,   0,     False,    False,  1,    .120),
    "food":         (1000,   .09,   True,     True,   3,    .007),
    "fuels":        (640,    .08,   True,     True,   3,    .002),
    "chemicals":    (1050,   .25,   True,     True,   3,    .006),
    "materials":    (1100,   .20,   True,     True,   3,    .020),
    "machinery":    (930,    .42,   True,     True,   3,    .010),
    "vehicles":     (1050,   .28,   True,     True,   3,    .004),
    "trade":        (3600,   0,     False,    False,  1,    .160),
    "transport":    (1330,   0,     False,    False,  1,    .035),
    "business":     (12000,  0,     False,    False,  1,    .320),
    "other":        (9400,   0,     False,    False,  1,    .266),
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
    name="the United States, 2019, rough",
)
"""Fourteen industries of the United States about 2019.

Rough values after the Bureau of Economic Analysis's Use table (summary level, 2019, producers' prices), rounded to
0.01, or to a digit or two for output and the shares of imports; they are to be checked against the table. Value added
comes to $20.4 trillion (published: $21.4 trillion). Machinery includes electronics; materials are wood, paper, minerals
and metals; business is information, finance, real estate and professional services; other is health, education,
leisure and government. What is essential, what can be stocked, the days of transport and the shares of firms are
chosen.
"""
