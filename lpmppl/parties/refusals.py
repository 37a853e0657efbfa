"""Why a party refuses a message, by name."""

from __future__ import annotations

from enum import Enum

import grpc

from lpmppl.errors import LpmError

__all__ = ["Reason", "Refused"]

_Code = grpc.StatusCode


class Reason(Enum):
    """A name for each thing that a message can be refused for; it begins the details of the gRPC status."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    OVERSIZED = "oversized"
    VERSION = "version"
    SESSION = "session"
    MODEL = "model"
    SENDER = "sender"
    RECIPIENT = "recipient"
    ROLE = "role"
    LATE = "late"
    EARLY = "early"
    SLOTS = "slots"
    PARTS = "parts"
    LENGTH = "length"
    RANGE = "range"
    PROOF = "proof"
    NOISE = "noise"
    CONFLICT = "conflict"
    FULL = "full"
    NOT_CLOSED = "not-closed"
    OTHER_CHALLENGE = "other-challenge"
    OTHER_SET = "other-set"
    NOT_HELD = "not-held"
    TOO_FEW = "too-few"

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status that goes with it."""
        return _CODES.get(self, _Code.FAILED_PRECONDITION)


_CODES = {
    **dict.fromkeys(
        (
            Reason.MALFORMED,
            Reason.TRUNCATED,
            Reason.OVERSIZED,
            Reason.SLOTS,
            Reason.PARTS,
            Reason.LENGTH,
            Reason.RANGE,
            Reason.PROOF,
            Reason.NOISE,
        ),
        _Code.INVALID_ARGUMENT,
    ),
    **dict.fromkeys((Reason.SENDER, Reason.ROLE), _Code.PERMISSION_DENIED),
    Reason.CONFLICT: _Code.ALREADY_EXISTS,
    Reason.FULL: _Code.RESOURCE_EXHAUSTED,
}


class Refused(LpmError):  # noqa: N818
    """A message that a party refuses: the reason, and the details in words."""

    def __init__(self, reason: Reason, details: str) -> None:
        super().__init__(f"{reason.value}: {details}")
        self.reason = reason

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refused | None:
        """The refusal that a gRPC error carries, if it carries one."""
        name, colon, details = (error.details() or "").partition(": ")
        if not colon or name not in _NAMES:
            return None
        return cls(_NAMES[name], details)


_NAMES = {reason.value: reason for reason in Reason}
