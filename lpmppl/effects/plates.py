"""The agents' plate: global ids, no subsample site, and nothing to pay for entering it every day."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lpmppl._compat import CondIndepStackFrame, Message, Messenger, broadcast_to_plates

__all__ = ["AgentPlate"]


class AgentPlate(Messenger):
    """Make sample sites independent over agents, on the last dimension, and tell handlers which agents they are.

    A site inside carries `infer["agents"]`, the global ids of shape (n,), and `infer["episode"]`: None where its
    chance belongs to the step, or the episode of each agent's life that it belongs to.

    Args:
        name: the plate's name.
        ids: global ids of the agents, integers of shape (n,).
        episode: None, or the episode (a number, or integers of shape (n,) or (…, n)).
        rows: for some agents of several worlds and draws at once, reads what belongs to a world or draw for each of
            them, from shape (…, 1) to (n,).
    """

    def __init__(
        self,
        name: str,
        ids: Tensor,
        episode: Tensor | int | None = None,
        rows: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.ids = ids
        self.episode = episode
        self.rows = rows
        self.frame = CondIndepStackFrame(name=name, dim=-1, size=ids.shape[0], counter=0)

    def _pyro_sample(self, msg: Message) -> None:
        msg["infer"] = {**(msg["infer"] or {}), "agents": self.ids, "episode": self.episode, "rows": self.rows}
        msg["cond_indep_stack"] = (self.frame, *msg["cond_indep_stack"])
        broadcast_to_plates(msg)
