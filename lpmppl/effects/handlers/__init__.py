"""The meanings of a society's program, one handler a file."""

from lpmppl.effects.handlers.abducted import Abduct, Abducted
from lpmppl.effects.handlers.behaviour import Tabulated, Utility
from lpmppl.effects.handlers.checkpointed import Checkpointed
from lpmppl.effects.handlers.cuts import Cuts
from lpmppl.effects.handlers.decided import Decided
from lpmppl.effects.handlers.expected import Expected
from lpmppl.effects.handlers.flips import Flips, Scores, Stakes
from lpmppl.effects.handlers.guided import Guided
from lpmppl.effects.handlers.language import LanguageModel
from lpmppl.effects.handlers.neural import ChoiceNetwork, Neural
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.handlers.pathwise import Pathwise
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.relaxations import GumbelSoftmax, MeanField, StraightThrough
from lpmppl.effects.handlers.reported import Reported
from lpmppl.effects.handlers.score_function import ScoreFunction
from lpmppl.effects.handlers.sharded import Sharded
from lpmppl.effects.handlers.sharing import FixedPoint, SecretShared
from lpmppl.effects.handlers.silenced import Silenced
from lpmppl.effects.handlers.sources import Sources
from lpmppl.effects.handlers.stratified import Stratified
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.handlers.transitions import Transitions
from lpmppl.effects.handlers.verify import Invariant, Verified, Witness, bounded, conserved, finite, never_falls

__all__ = [
    "Abduct",
    "Abducted",
    "Checkpointed",
    "ChoiceNetwork",
    "Cuts",
    "Decided",
    "DiscreteTime",
    "ExogenousNoise",
    "Expected",
    "FixedPoint",
    "Flips",
    "Guided",
    "GumbelSoftmax",
    "Invariant",
    "LanguageModel",
    "MeanField",
    "Neural",
    "Pathwise",
    "Record",
    "Reported",
    "ScoreFunction",
    "Scores",
    "SecretShared",
    "Sharded",
    "Silenced",
    "Sources",
    "Stakes",
    "StraightThrough",
    "Stratified",
    "Tabulated",
    "Transitions",
    "Utility",
    "Verified",
    "Witness",
    "bounded",
    "conserved",
    "finite",
    "never_falls",
]
