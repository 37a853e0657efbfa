"""What a server and institutions agree on who learn a split network together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpmppl.errors import InputError, nearest
from lpmppl.inference.calibnn import AT_ONCE
from lpmppl.inference.checks import whole
from lpmppl.inference.observed import Observed
from lpmppl.inference.reader import blank, named, wanted
from lpmppl.inference.split import divided
from lpmppl.models.model import Model
from lpmppl.parties.session import Session, fingerprint

__all__ = ["SplitAgreement"]

_A_DAY, _READ = 8, 128
"""No fewer numbers than a series has a day, and than are read in one."""


class SplitAgreement:
    """Whose streams are whose, and what is learnt of how many runs.

    Args:
        institutions: the streams of each institution, by its name, as `SplitCalibNN` takes them.
        days: for how many days.
        simulations: how many runs the server makes.
        seed: of all chance, and of the first weights.
    Raises:
        InputError: for what can't be used, by name.

    >>> agreed = SplitAgreement({"hospitals": "admissions", "registry": "deaths"}, days=40, simulations=512)
    >>> agreed.of("registry")
    {'deaths': []}
    """

    def __init__(self, institutions: Mapping[str, Any], days: int, simulations: int, seed: int = 0) -> None:
        if not isinstance(institutions, Mapping) or not institutions:
            raise InputError("no institution was given; give streams by name, such as {'hospitals': 'admissions'}")
        self.streams = {str(name): wanted(streams) for name, streams in institutions.items()}
        self.days, self.simulations = whole("days", days, 2), whole("simulations", simulations, 1)
        self.seed = whole("seed", seed, 0)

    @property
    def fingerprint(self) -> str:
        """It as a session's model."""
        whose = {name: dict(sorted(streams.items())) for name, streams in self.streams.items()}
        # The order of institutions counts: the first weights are drawn in it.
        return fingerprint("split", [*whose.items()], self.days, self.simulations, self.seed)

    def session(self, model: Model, helpers: int = 2, **options: Any) -> Session:
        """A session of this, with room for its largest message.

        Args:
            model: the society, or one whose people are grouped alike.
            helpers: how many helpers, who have nothing to do here.
            options: what else `Session.new` takes.
        Raises:
            InputError: for fewer than two institutions, names that can't be used, or streams that the society lacks.
        """
        if len(self.streams) < 2:
            raise InputError(f"one institution, {', '.join(self.streams)}, was given: give two or more to a session")
        most = max(len(mine) for mine in self.series(model).values())
        days_read = AT_ONCE * max(_A_DAY * self.days, _READ)
        longest = most * max(days_read, self.simulations * self.days)
        clients = dict.fromkeys(self.streams, 1)
        return Session.new(
            model=self.fingerprint, helpers=helpers, clients=clients, least=2, longest=longest, **options
        )

    def check(self, session: Session) -> None:
        """Refuse a session that is of something else."""
        if session.model != self.fingerprint:
            raise InputError(
                f"the session is for model {session.model}, and these institutions, days, simulations and seed make "
                f"{self.fingerprint}; give those that the session was made with"
            )
        if list(session.clients) != list(self.streams):
            raise InputError(
                f"the session is of {', '.join(session.clients)}, and not of {', '.join(self.streams)}; make it with "
                "SplitAgreement.session(…)"
            )

    def names(self, model: Model) -> list[str]:
        """The name of every series, in the order in which they are read."""
        flat = {stream: kept for mine in self.streams.values() for stream, kept in mine.items()}
        return named(Observed.of(model, blank(model, flat, self.days)))

    def series(self, model: Model) -> dict[str, list[str]]:
        """The series of each institution, sorted by name."""
        return divided(sorted(self.names(model)), self.streams)

    def of(self, name: str) -> Mapping[str, list[str]]:
        """An institution's streams, with the strata that they keep."""
        if name not in self.streams:
            raise InputError(nearest("institution", name, self.streams))
        return self.streams[name]
