"""The meanings of a society's program, one handler a file."""

from lpmppl.effects.handlers.behaviour import Tabulated, Utility
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.silenced import Silenced
from lpmppl.effects.handlers.sources import Sources
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.handlers.verify import Invariant, Verified, bounded, conserved, never_falls

__all__ = [
    "DiscreteTime",
    "ExogenousNoise",
    "Invariant",
    "Record",
    "Silenced",
    "Sources",
    "Tabulated",
    "Utility",
    "Verified",
    "bounded",
    "conserved",
    "never_falls",
]
