"""The epidemic in lpmppl on the pairs given, as the other packages have them, instead of groups that mix."""

import numpy as np
import torch

import lpmppl as lpm
from contacts import Pairs, People
from epidemic import Run, measure
from lpmppl.models.contacts import Layer
from lpmppl.models.networks import Edges
from lpmppl.models.nyc import STRATA
from lpmppl.models.seirm import SEIRM
from peer_lpmppl import running


def layer(name: str, pairs: Pairs, agents: int) -> Layer:
    """A network of pairs; a person's contacts a day are the sum of its pairs' weights."""
    one, other = torch.from_numpy(pairs.one), torch.from_numpy(pairs.other)
    contacts = sum(np.bincount(end, pairs.weight, agents) for end in (pairs.one, pairs.other))
    network = Edges(name, torch.cat((one, other)), torch.cat((other, one)), agents)
    return Layer(network, torch.as_tensor(contacts, dtype=torch.float32))


def build(people: People, beta: float, days: int, seed: int) -> Run:
    """Make the model of the pairs."""
    residents = lpm.nyc.population(len(people))
    layers = [layer(name, pairs, len(people)) for name, pairs in people.layers.items()]
    return running(SEIRM(residents, layers, by=STRATA), beta, days, seed)


if __name__ == "__main__":
    measure(f"lpmppl {lpm.__version__}, on the pairs", build)
