"""Synthetic firms: their industries, sizes, regions, and who supplies whom."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data.industries import UNITED_STATES, Industries
from lpmppl.errors import InputError
from lpmppl.models import given
from lpmppl.models.population import Population

__all__ = ["REGIONS", "SIZES", "firms", "usual_output"]

REGIONS = ("Northeast", "Midwest", "South", "West")
"""Census regions of the United States, with the shares of employment below (rounded)."""

_REGION_SHARES = (0.18, 0.22, 0.37, 0.23)

SIZES = ("below 10", "10 to 100", "100 to 1000", "1000 or more")
"""Size classes, by usual output in thousand dollars a day."""

_ALL_FIRMS = 6.1e6
"""Firms with employees in the United States (Census Bureau, Statistics of U.S. Businesses, 2019)."""

_ZIPF = 1.059
"""The exponent of the tail of firms' sizes: Axtell, Science 293 (2001), 1818."""

_LARGEST = 1e5
"""How many times the smallest firm of an industry the largest can be, before its customers are known."""

_LARGEST_IMPORTER = 10.0
"""The same of importers (chosen): what comes through a port doesn't hang on one of them."""

_PLANT = 100.0
"""Thousand dollars a day that one plant makes, at most (chosen)."""

_LEAST_EACH = 3
"""Firms at home that every industry has at least."""

_ROUNDS = 100_000
"""After how many rounds what firms make for each other is taken to have no end."""

_MOST, _MORE, _CAUTION = 100_000_000, 100.0, 3.0
"""The most firms, suppliers for each size class, and spread of stocks in logarithms that can be meant."""

Index = NDArray[np.int64]
Numbers = NDArray[np.float64]


def firms(
    number: int = 20_000,
    seed: int = 0,
    industries: Industries = UNITED_STATES,
    *,
    port_share: float = 0.4,
    least: float = 0.02,
    more: float = 0.5,
    caution: float = 0.5,
) -> Population:
    """Make synthetic firms with the industries, the sizes and the numbers of suppliers that are published.

    Sizes are Zipf's within each industry. A firm has one supplier of each product that it uses, and larger firms more;
    suppliers are chosen in proportion to their size. Importers are firms that make a product out of nothing here; of
    the suppliers of a product, its imported share are importers. Final demand is spread over firms by size, and the
    usual output is what satisfies it and all customers (`usual_output`). The industries are those of an economy of 6.1
    million firms, of which these are a sample: they have its output divided by as much.

    Args:
        number: how many firms, 1,000 or more.
        seed: the seed of all that is drawn.
        industries: what they make and use.
        port_share: the share of the importers of each product who are in the West, one or more of them; of imports by
            value it is that in expectation.
        least: inputs of less than so many dollars per dollar of output aren't followed.
        more: further suppliers of each product, for each size class above the smallest, up to 100.
        caution: how differently firms hold stocks, as a standard deviation in logarithms, up to 3.
    Returns:
        a population over `agent` with `sector`, `region`, `size_class`, `foreign`, `plants`, `usual` and `final` in
        thousand dollars a day, and `caution`, the factor on the days of use that a firm holds, 1 in expectation; over
        `trade`, who sells to whom as ids, `seller` and `buyer`.
    Raises:
        InputError: for a number or share that can't be, or industries of which too few firms would be left.

    >>> people = firms(1_000)
    >>> people.size, people.labels("sector")[:3]
    (1000, ['farms', 'mining', 'utilities'])
    """
    number, seed = given.whole("number", number, 1_000, _MOST), given.whole("seed", seed, 0)
    if not isinstance(industries, Industries):
        raise InputError(f"industries={given.shown(industries)} was given; give Industries, such as UNITED_STATES")
    port_share, least = given.number("port_share", port_share, 0.0, 1.0), given.number("least", least, 0.0, 1.0)
    more, caution = given.number("more", more, 0.0, _MORE), given.number("caution", caution, 0.0, _CAUTION)
    rng, every, industries = np.random.default_rng(seed), industries, industries.followed(least)
    if every.requirements.any() and not industries.requirements.any():
        raise InputError(f"least={least:g} was given, with which nobody would use anything; give less")
    sector, foreign = _placed(number, industries)
    size = (1 - rng.random(number) * (1 - _LARGEST**-_ZIPF)) ** (-1 / _ZIPF)
    size = np.where(foreign, np.minimum(size, _LARGEST_IMPORTER), size)
    region = rng.choice(len(REGIONS), number, p=_REGION_SHARES)
    elsewhere = rng.choice(len(REGIONS) - 1, number)
    region = np.where(foreign, np.where(_spread(sector, foreign, port_share), 3, elsewhere), region)
    seller, buyer = _trade(rng, sector, foreign, size, industries, more)
    scale = 1e6 / 365 * number / _ALL_FIRMS
    final = np.zeros(number)
    for j, demand in enumerate(industries.final):
        for abroad, share in ((False, 1 - industries.imported[j]), (True, industries.imported[j])):
            own = np.flatnonzero((sector == j) & (foreign == abroad))
            final[own] = scale * demand * share * size[own] / size[own].sum()
    usual = usual_output(sector, foreign, final, seller, buyer, industries.requirements)
    z = rng.standard_normal(number)
    columns = {
        "sector": (sector.astype(np.min_scalar_type(len(industries.labels) - 1)), industries.labels),
        "region": (region.astype(np.uint8), REGIONS),
        "foreign": (foreign.astype(np.uint8), ("domestic", "imports")),
        "size_class": (np.digitize(usual, (10.0, 100.0, 1000.0)).astype(np.uint8), SIZES),
    }
    plain = {
        "plants": np.ceil(np.maximum(usual, 1e-9) / _PLANT).astype(np.int32),
        "usual": usual,
        "final": final,
        "caution": np.exp(caution * z - caution**2 / 2),
    }
    said = {"firms": number, "seed": seed, "industries": industries.name, "port_share": port_share, "least": least}
    return Population(
        xr.Dataset(
            {n: ("agent", codes, {"labels": list(labels)}) for n, (codes, labels) in columns.items()}
            | {n: ("agent", values) for n, values in plain.items()}
            | {n: ("trade", x.astype(np.int32)) for n, x in (("seller", seller), ("buyer", buyer))},
            attrs={
                "title": f"synthetic firms of {industries.name}",
                "agents_are": "firms",
                "provenance": json.dumps(said),
            },
        )
    )


def usual_output(
    sector: Index, foreign: NDArray[np.bool_], final: Numbers, seller: Index, buyer: Index, requirements: Numbers
) -> Numbers:
    r"""What every firm makes a day when all demand is met: :math:`y_f = d_f + \sum_c a_{s(f) s(c)} y_c / n_c`.

    Here n is how many suppliers the customer has of the product. Summed over the firms of each industry, where nothing
    is imported, it is Leontief's :math:`(I - A)^{-1} d`.

    Args:
        sector: the industry of each firm, shape (N,).
        foreign: whether it is an importer, who uses nothing, shape (N,).
        final: final demand d, shape (N,).
        seller: who sells, places in 0 … N − 1, shape (E,).
        buyer: to whom, shape (E,).
        requirements: A, shape (S, S).
    Returns:
        shape (N,), in the unit of final demand.
    Raises:
        InputError: for numbers that aren't finite, or of which there is no end.
    """
    usual, each = final, uses(requirements, sector, foreign, seller, buyer)
    for _ in range(_ROUNDS):
        # What firms use is less than what they make, so that every round adds less.
        after = asked_for(usual, final, each, seller, buyer)
        if not np.isfinite(after).all():
            break
        if np.abs(after - usual).max() <= 1e-13 * np.abs(after).max():
            return np.asarray(after)
        usual = after
    raise InputError(
        f"what these {len(sector)} firms make for each other has no end; give finite numbers, and requirements that "
        "sum to less than 1 in each column"
    )


def uses(requirements: Numbers, sector: Index, foreign: NDArray[np.bool_], seller: Index, buyer: Index) -> Numbers:
    """What each buyer uses of what each seller makes, in dollars per dollar of its output, shape (E,)."""
    many = len(requirements)
    own = buyer * many + sector[seller]
    suppliers = np.bincount(own, minlength=len(sector) * many)
    found: Numbers = np.where(foreign[buyer], 0.0, requirements[sector[seller], sector[buyer]] / suppliers[own])
    return found


def asked_for(usual: Numbers, final: Numbers, each: Numbers, seller: Index, buyer: Index) -> Numbers:
    """What each firm is asked for where all make as much as `usual`, of which customers use `each`: shape (N,)."""
    found: Numbers = final + np.bincount(seller, weights=each * usual[buyer], minlength=len(final))
    return found


def _placed(number: int, industries: Industries) -> tuple[Index, NDArray[np.bool_]]:
    """The industry of each firm, three or more in each, and whether it is an importer."""
    sectors, abroad = [], []
    for j, share in enumerate(industries.firms):
        many = max(_LEAST_EACH, round(float(share) * number))
        importers = max(2, round(many * float(industries.imported[j]) / 2)) if industries.imported[j] > 0 else 0
        sectors += [j] * (many + importers)
        abroad += [False] * many + [True] * importers
    sector, foreign = np.array(sectors), np.array(abroad)
    # The largest industry at home gives, or takes, what rounding has left.
    large = np.flatnonzero((sector == np.argmax(industries.firms)) & ~foreign)
    extra = number - len(sector)
    if len(large) + extra < _LEAST_EACH:
        raise InputError(
            f"number={number:,} firms are too few for {len(industries.labels)} industries; give "
            f"{len(sector) - len(large) + _LEAST_EACH:,} or more"
        )
    if extra < 0:
        kept = np.delete(np.arange(len(sector)), large[:-extra])
        return sector[kept], foreign[kept]
    return np.append(sector, np.full(extra, sector[large[0]])), np.append(foreign, np.zeros(extra, bool))


def _spread(sector: Index, foreign: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """A share of the importers of every industry, the first of each: at least one, and never all, but for 0 and 1."""
    chosen = np.zeros(len(sector), bool)
    for j in np.unique(sector[foreign]):
        own = np.flatnonzero(foreign & (sector == j))
        most = len(own) if share == 1 else len(own) - 1
        chosen[own[: 0 if share == 0 else min(max(1, round(share * len(own))), most)]] = True
    return chosen


def _trade(
    rng: np.random.Generator,
    sector: Index,
    foreign: NDArray[np.bool_],
    size: Numbers,
    industries: Industries,
    more: float,
) -> tuple[Index, Index]:
    """Who sells to whom: sellers and buyers, each pair once."""
    many, sellers, buyers = len(sector), [], []
    classes = np.minimum(np.log10(size).astype(int), len(SIZES) - 1)
    for j in range(len(industries.labels)):
        users = np.flatnonzero(~foreign & (industries.requirements[j, sector] > 0))
        buyer = np.repeat(users, 1 + rng.poisson(more * classes[users]))
        imported = rng.random(len(buyer)) < industries.imported[j]
        seller = np.empty(len(buyer), np.int64)
        for abroad in (False, True):
            own = np.flatnonzero((sector == j) & (foreign == abroad))
            wanted = np.flatnonzero(imported == abroad)
            if len(wanted):
                below = np.cumsum(size[own]) / size[own].sum()
                place = np.minimum(np.searchsorted(below, rng.random(len(wanted))), len(own) - 1)
                # Nobody is a supplier of its own: the next one is.
                place = np.where(own[place] == buyer[wanted], (place + 1) % len(own), place)
                seller[wanted] = own[place]
        sellers.append(seller)
        buyers.append(buyer)
    pairs = np.unique(np.concatenate(buyers) * many + np.concatenate(sellers))
    return pairs % many, pairs // many
