"""The wall between the society's solver and an ODE solver inside one of its steps."""

from __future__ import annotations

from lpmppl._compat import Message, Messenger

__all__ = ["inner_wall", "solver_wall"]

_SOLVER_OPS = (
    "simulate",
    "simulate_point",
    "simulate_trajectory",
    "simulate_to_interruption",
    "get_new_interruptions",
    "check_dynamics",
)


class solver_wall(Messenger):
    """Hide the outer solver, which would overwrite the inner, and its interruptions, which would be used up."""

    def _process_message(self, msg: Message) -> None:  # type: ignore[override]
        if msg["type"] in _SOLVER_OPS:
            msg["stop"] = True


class inner_wall(Messenger):
    """Keep what is forced inside the ODE from the society, whose worlds it would part.

    And ChiRho's solvers would solve anew what its log of the trajectory has solved.
    """

    def _pyro_intervene(self, msg: Message) -> None:
        msg["stop"] = True

    def _pyro_simulate_point(self, msg: Message) -> None:
        msg["stop"] = bool(msg["done"])
