"""The people of `lpm.nyc.population` and their contacts in one file, on which every package runs the same epidemic.

Households, workplaces, schools and neighbourhoods become pairs of people, as packages hold them. In a group where
everybody can meet everybody within the layer's number of contacts, each pair meets; in a larger one each person draws
half of that number at random among the group's people, and is drawn as often. A pair's weight is its contacts a day:
those of the layer in New York's population (`lpmppl.models.contacts`), spread over the people that it is spread over.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUMBERS = {
    "default": {"household": 20, "workplace": 16, "school": 20, "community": 20},
    "few": {"household": 20, "workplace": 8, "school": 12, "community": 4},
}
"""People whom a person meets in each layer, at most: the default numbers of Covasim for workplaces, schools and the
community, or about as many as it has contacts a day in New York's population."""


@dataclass
class Pairs:
    """One layer: who meets whom, each pair once, and how many contacts a day a pair has."""

    one: NDArray[np.int32]
    other: NDArray[np.int32]
    weight: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.one)


@dataclass
class People:
    """The people: age in years, susceptibility, and who meets whom in each layer."""

    age: NDArray[np.uint8]
    susceptibility: NDArray[np.float32]
    layers: dict[str, Pairs]

    def __len__(self) -> int:
        return len(self.age)

    def first(self, agents: int) -> People:
        """The first people and their contacts among each other."""
        layers = {}
        for name, pairs in self.layers.items():
            keep = (pairs.one < agents) & (pairs.other < agents)
            layers[name] = Pairs(pairs.one[keep], pairs.other[keep], pairs.weight[keep])
        return People(self.age[:agents], self.susceptibility[:agents], layers)

    def save(self, path: Path) -> None:
        """Write them to a file of NumPy's."""
        arrays: dict[str, Any] = {"age": self.age, "susceptibility": self.susceptibility}
        for name, pairs in self.layers.items():
            arrays |= {f"{name}/{part}": values for part, values in vars(pairs).items()}
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> People:
        """Read what `save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        names = dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name)
        layers = {n: Pairs(*(arrays[f"{n}/{part}"] for part in ("one", "other", "weight"))) for n in names}
        return cls(arrays["age"], arrays["susceptibility"], layers)


def pairs_of(group: NDArray[np.integer], contacts: float, number: int, rng: np.random.Generator) -> Pairs:
    """The pairs of people in groups, such as households.

    Args:
        group: the group of each person, below 0 for none, integers of shape (N,).
        contacts: contacts a day of each.
        number: with how many people at most; an even number.
        rng: what draws them.
    """
    order = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :].astype(np.int32)
    _, begin, size = np.unique(group[order], return_index=True, return_counts=True)
    first, many = np.repeat(begin, size), np.repeat(size, size)
    place = np.arange(len(order)) - first
    ones, others, weights = [], [], []
    for step in range(1, number + 1):
        here = np.flatnonzero((many <= number + 1) & (place + step < many))
        ones.append(order[here])
        others.append(order[here + step])
        weights.append(contacts / many[here])
    large = np.repeat(np.flatnonzero(many > number + 1), number // 2)
    drawn = first[large] + np.floor(rng.random(len(large)) * many[large]).astype(np.int64)
    apart = drawn != large
    ones.append(order[large[apart]])
    others.append(order[drawn[apart]])
    weights.append(np.full(int(apart.sum()), contacts / number))
    return Pairs(np.concatenate(ones), np.concatenate(others), np.concatenate(weights).astype(np.float32))


def exported(agents: int, numbers: dict[str, int]) -> People:
    """The people of New York and their contacts."""
    import lpmppl as lpm
    from lpmppl.models.contacts import CONTACTS, SUSCEPTIBILITY

    people, rng = lpm.nyc.population(agents), np.random.default_rng(0)
    kinds = people.labels("workplace_kind")
    kind = people["workplace_kind"].numpy()[people["workplace"].numpy()]

    def at(name: str) -> NDArray[np.integer]:
        return np.where(kind == kinds.index(name), people["workplace"].numpy(), -1)

    groups = {"household": people["household"].numpy(), "workplace": at("workplace"), "school": at("school")}
    groups["community"] = people["neighbourhood"].numpy()
    layers = {name: pairs_of(group, CONTACTS[name], numbers[name], rng) for name, group in groups.items()}
    susceptibility = np.array(SUSCEPTIBILITY, np.float32)[people["age_band"].numpy()]
    return People(people["age"].numpy(), susceptibility, layers)


def main() -> None:
    """Write the people of a size to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--contacts", choices=NUMBERS, default="default")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    people = exported(args.agents, NUMBERS[args.contacts])
    people.save(args.out)
    each = ", ".join(f"{name} {len(pairs) / len(people):.2f}" for name, pairs in people.layers.items())
    print(f"{args.out}: {len(people):,} people; pairs a person: {each}")


if __name__ == "__main__":
    main()
