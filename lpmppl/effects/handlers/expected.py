"""What counts of the environment, such as reports, are expected to be in a run, given all that happened in it."""

from __future__ import annotations

from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.distributions import Counted
from lpmppl.effects.handlers.held import place_of

__all__ = ["Expected"]


class Expected(Messenger):
    """Keep the mean and the dispersion of every count that is sampled outside the agents' plate.

    So the probability of what was counted in truth is known, however the run's own chance of counting came out. It goes
    inside `ExogenousNoise` and changes nothing.

    Attributes:
        means: by site and step, the means, shape (…, G).
        sizes: by site and step, the sizes k of their negative binomial, which broadcast with the means.
    """

    reads_sparse = True

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[str, dict[int, Tensor]] = {}
        self.sizes: dict[str, dict[int, Tensor]] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        fn, infer = msg["fn"], msg["infer"] or {}
        if not isinstance(fn, Counted) or infer.get("agents") is not None:
            return
        site, step = place_of(infer, msg["name"])
        self.means.setdefault(site, {})[step] = fn.mean_count.detach()
        self.sizes.setdefault(site, {})[step] = fn.size.detach()
