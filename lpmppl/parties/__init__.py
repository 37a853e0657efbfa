"""Sums over people whose numbers no one sees, between real parties: clients, helpers, and a coordinator.

Each client splits its agents' numbers into additive shares, one for each helper. A round's sum is over exactly those
agents whose shares reached every helper. Private where one helper is honest, and the helpers follow the protocol; not
hidden are who takes part, when, and the opened sums: where two rounds' sums are over sets that differ by one agent, and
the others' numbers are the same, they tell that agent's. Nothing here stops a client from sending wrong numbers, or a
coordinator that owns all but one of the agents of a sum. Sessions are files (`session`), parties know one another by
certificates (`certificates`).
"""

import os

from lpmppl.errors import LpmError

# Else a process that has spoken with another may end children that it starts later: grpc/grpc, issue 43055.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
try:
    import cryptography as _cryptography  # noqa: F401
    import grpc as _grpc  # noqa: F401
except ImportError as e:
    raise LpmError("parties need the packages cryptography and grpcio: pip install 'lpmppl[parties]'") from e
