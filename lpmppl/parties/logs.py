"""What a party says of its work: a JSON object a line, without anything of what it keeps."""

from __future__ import annotations

import datetime
import json
import sys
from typing import TextIO

from lpmppl.parties.session import Session

__all__ = ["Log"]


class Log:
    """A party's log: its events with rounds and counts; never seeds, parts, sums or keys.

    Args:
        party: the name of who speaks.
        session: the session.
        stream: where to; standard error at the time of speaking if it isn't given.
    """

    def __init__(self, party: str, session: Session, stream: TextIO | None = None) -> None:
        self._party, self._session, self._stream = party, session.id.hex(), stream

    def say(self, event: str, **fields: int | float | str) -> None:
        """Write one line."""
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "party": self._party, "event": event, "session": self._session, **fields}
        # One write a line: lines of processes that share a stream don't mix.
        (self._stream or sys.stderr).write(json.dumps(line) + "\n")
        (self._stream or sys.stderr).flush()
