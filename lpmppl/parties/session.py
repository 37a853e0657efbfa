"""What all parties of a private sum agree on before they start."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError, nearest
from lpmppl.parties.kept import replace

__all__ = ["COORDINATOR", "VERSION", "Session", "fingerprint", "helper_name"]

VERSION = 2
"""Of the protocol."""
COORDINATOR = "coordinator"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RESERVED = re.compile(r"coordinator|helper-\d+|ca", re.IGNORECASE)
_MOST_PARTIES = 60_000
_MOST_AGENTS = 2**27
_LONGEST = 2**27
_MOST_FOR_THRESHOLD = 255


@dataclass(frozen=True)
class Session:
    """A session of rounds among a coordinator, helpers and clients.

    Args:
        id: 16 random bytes.
        version: of the protocol.
        model: the fingerprint of what all clients run.
        helpers: m, 2 or more.
        clients: the number of agents of each client by name; agents are slots 0, …, n − 1.
        least: the fewest agents that a sum may be opened over.
        deadline: seconds that a round lasts at most after the first client begins it.
        longest: the most numbers that an agent has in a round, with what proves them.
        threshold: t, so that any t helpers open a round and others may be lost; all are needed if it isn't given.
        proofs: whether only agents are summed over whose numbers are proved to be in their range.
    Raises:
        InputError: for what can't be used, by name.
    """

    id: bytes
    version: int
    model: str
    helpers: int
    clients: Mapping[str, int]
    least: int = 10
    deadline: float = 30.0
    longest: int = 4096
    threshold: int | None = None
    proofs: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, bytes) or len(self.id) != 16:
            raise InputError("a session's id is 16 random bytes; make sessions with Session.new(…)")
        if self.version != VERSION:
            raise InputError(
                f"the session has protocol version {self.version}, and this lpmppl speaks {VERSION}; take the same "
                "release of lpmppl for all parties and make the session with it"
            )
        if not isinstance(self.model, str) or not self.model.isprintable() or not self.model:
            raise InputError("model: give the fingerprint of what all clients run, a string that isn't empty")
        if _whole("helpers", self.helpers) < 2:
            raise InputError(f"helpers={self.helpers}: one helper would see everyone's numbers; give 2 or more")
        if not isinstance(self.clients, Mapping) or not self.clients:
            raise InputError('clients: give the number of agents of each by name, {"bronx": 1000, …}')
        if len(self.clients) + self.helpers >= _MOST_PARTIES:
            raise InputError(f"{len(self.clients)} clients and {self.helpers} helpers are more than {_MOST_PARTIES}")
        for name, agents in self.clients.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
                raise InputError(
                    f"a client can't be named {name!r}: give 1 to 63 letters, digits, '-', '_' or '.', other than "
                    "'coordinator', 'ca' and 'helper-0', …"
                )
            if not 1 <= _whole(f"the agents of client '{name}'", agents) <= _MOST_AGENTS:
                raise InputError(f"client '{name}' has {agents} agents; give a number from 1 to {_MOST_AGENTS}")
        if not 2 <= _whole("least", self.least) <= sum(self.clients.values()):
            raise InputError(
                f"least={self.least}: a sum over one agent is that agent's number, and all clients together have "
                f"{sum(self.clients.values())}; give a number from 2 to that"
            )
        if not isinstance(self.deadline, int | float) or not 0 < self.deadline < math.inf:
            raise InputError(f"deadline={self.deadline}: give a number of seconds above 0")
        if not 1 <= _whole("longest", self.longest) <= _LONGEST:
            raise InputError(f"longest={self.longest}: give the most numbers of an agent, from 1 to {_LONGEST}")
        if self.threshold is not None:
            if not self.helpers < 2 * _whole("threshold", self.threshold) <= 2 * self.helpers:
                raise InputError(
                    f"threshold={self.threshold} of helpers={self.helpers}: give more than half of the helpers, or two "
                    "groups of them could open two sums that differ by one agent"
                )
            if self.helpers > _MOST_FOR_THRESHOLD:
                raise InputError(f"helpers={self.helpers}: a threshold goes with {_MOST_FOR_THRESHOLD} at most")
            if self.proofs:
                raise InputError(f"threshold={self.threshold}: proofs need all helpers; leave one of the two out")
        if not isinstance(self.proofs, bool):
            raise InputError(f"proofs={self.proofs!r}: say True or False")
        object.__setattr__(self, "deadline", float(self.deadline))
        object.__setattr__(self, "clients", MappingProxyType(dict(self.clients)))

    def __reduce__(self) -> tuple[object, ...]:
        fields = (getattr(self, field.name) for field in fields_of(self))
        return Session, tuple(dict(x) if isinstance(x, Mapping) else x for x in fields)

    @classmethod
    def new(
        cls,
        *,
        model: str,
        helpers: int,
        clients: Mapping[str, int],
        least: int = 10,
        deadline: float = 30.0,
        longest: int = 4096,
        threshold: int | None = None,
        proofs: bool = False,
    ) -> Session:
        """A session with an id of its own.

        >>> session = Session.new(model="sir-1", helpers=3, clients={"bronx": 1000, "queens": 2000})
        >>> session.parties
        ('coordinator', 'helper-0', 'helper-1', 'helper-2', 'bronx', 'queens')
        """
        id = secrets.token_bytes(16)
        return cls(id, VERSION, model, helpers, clients, least, deadline, longest, threshold, proofs)

    @classmethod
    def open(cls, path: str | Path) -> Session:
        """The session of a file that `save` has written."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            fields["id"] = bytes.fromhex(fields["id"])
            return cls(**fields)
        except InputError as e:
            raise InputError(f"session file {path}: {e}") from e
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as e:
            raise InputError(f"{path} can't be read as a session file ({e}); write one with Session.save(path)") from e

    def save(self, path: str | Path) -> None:
        """Write the session to a file for all parties."""
        try:
            replace(Path(path), _json(self._fields()), mode=0o644)
        except OSError as e:
            raise InputError(f"the session file {path} can't be written: {e}") from e

    @cached_property
    def parties(self) -> tuple[str, ...]:
        """The names of all: the coordinator, the helpers and the clients."""
        return (COORDINATOR, *(helper_name(k) for k in range(self.helpers)), *self.clients)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Each party's place among `parties`, which is its number in messages."""
        return {name: place for place, name in enumerate(self.parties)}

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the model's fingerprint."""
        return hashlib.sha256(self.model.encode()).digest()

    @cached_property
    def tag(self) -> bytes:
        """16 bytes that tell the session, with all that was agreed on but the model, from others."""
        return hashlib.sha256(_json({**self._fields(), "model": ""})).digest()[:16]

    @property
    def needed(self) -> int:
        """How many helpers it takes to open a round."""
        return self.helpers if self.threshold is None else self.threshold

    @property
    def grace(self) -> float:
        """Seconds that helpers are waited for that aren't needed."""
        return min(2.0, self.deadline / 10)

    def gets_vector(self, slots: NDArray[np.uint32], helper: int) -> NDArray[np.bool_]:
        """Of which slots a helper gets a vector: of those in turn, or of all or none with a threshold."""
        if self.threshold is None:
            return slots % self.helpers == helper
        return np.full(len(slots), helper >= self.threshold - 1)

    @property
    def largest(self) -> int:
        """The bytes of the largest message that a client may send."""
        return max(2**22, 8 * self.longest + 2**12)

    def _fields(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in fields_of(self)}
        return {**fields, "id": self.id.hex(), "clients": dict(self.clients)}

    def agents(self, client: str) -> int:
        """A client's number of agents."""
        if client not in self.clients:
            raise InputError(nearest("client", client, self.clients))
        return self.clients[client]


def fingerprint(kind: str, *terms: object) -> str:
    """What all clients must run alike, as a session's model: its kind, and a digest of its terms."""
    return f"{kind}-{hashlib.sha256(json.dumps([kind, *terms]).encode()).hexdigest()[:16]}"


def helper_name(k: int) -> str:
    """The name of helper k, as in its certificate."""
    return f"helper-{k}"


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"


def _whole(what: str, x: Any) -> int:
    if not isinstance(x, int) or isinstance(x, bool):
        raise InputError(f"{what}={x!r}: give a whole number")
    return x
