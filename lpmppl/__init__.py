"""Large Population Models as Pyro and ChiRho programs: write a society once, then simulate it, fit it, or ask what if.

>>> import lpmppl as lpm
>>> people = lpm.nyc.population(1_000)
>>> run = lpm.run(lpm.nyc.seirm(people), days=10, seed=0)
>>> run["prior_predictive"]["infections"].dims
('chain', 'draw', 'day', 'borough', 'age')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpmppl import report as report
    from lpmppl.effects.handlers.reported import Reported as Reported
    from lpmppl.effects.handlers.sharded import Sharded as Sharded
    from lpmppl.effects.handlers.sharing import SecretShared as SecretShared
    from lpmppl.effects.opening import Compared as Compared
    from lpmppl.effects.opening import Custodian as Custodian
    from lpmppl.effects.opening import Noised as Noised
    from lpmppl.inference.attributes import choose_attributes as choose_attributes
    from lpmppl.inference.attribution import attribute as attribute
    from lpmppl.inference.attribution import attribute_groups as attribute_groups
    from lpmppl.inference.attribution import attribute_layers as attribute_layers
    from lpmppl.inference.attribution import attribute_substeps as attribute_substeps
    from lpmppl.inference.audit import audit as audit
    from lpmppl.inference.calibnn import CalibNN as CalibNN
    from lpmppl.inference.calibrate import calibrate as calibrate
    from lpmppl.inference.contrasts import contrast as contrast
    from lpmppl.inference.contrasts import cost_per as cost_per
    from lpmppl.inference.contrasts import fates as fates
    from lpmppl.inference.counterfactual import counterfactual as counterfactual
    from lpmppl.inference.disparities import disparity as disparity
    from lpmppl.inference.distil import distil as distil
    from lpmppl.inference.error_budget import error_budget as error_budget
    from lpmppl.inference.error_budget import surveyed_budget as surveyed_budget
    from lpmppl.inference.exactly import calibrate_exactly as calibrate_exactly
    from lpmppl.inference.federated import FederatedCalibNN as FederatedCalibNN
    from lpmppl.inference.fidelity import fidelity as fidelity
    from lpmppl.inference.fidelity import fidelity_text as fidelity_text
    from lpmppl.inference.global_sensitivity import global_sensitivity as global_sensitivity
    from lpmppl.inference.likelihood import likelihood as likelihood
    from lpmppl.inference.omitted import omitted as omitted
    from lpmppl.inference.policies import Act as Act
    from lpmppl.inference.policies import Trigger as Trigger
    from lpmppl.inference.refine import refine as refine
    from lpmppl.inference.rephrasing import rephrased as rephrased
    from lpmppl.inference.run import create as create
    from lpmppl.inference.run import run as run
    from lpmppl.inference.search import search as search
    from lpmppl.inference.sensitivity import sensitivity as sensitivity
    from lpmppl.inference.simulator import Simulator as Simulator
    from lpmppl.inference.split import SplitCalibNN as SplitCalibNN
    from lpmppl.inference.utility import fit_utility as fit_utility
    from lpmppl.inference.weights import weigh as weigh
    from lpmppl.models import nyc as nyc

__version__ = "0.1.0"

_VERBS = {
    "run": "lpmppl.inference.run",
    "create": "lpmppl.inference.run",
    "counterfactual": "lpmppl.inference.counterfactual",
    "calibrate": "lpmppl.inference.calibrate",
    "calibrate_exactly": "lpmppl.inference.exactly",
    "contrast": "lpmppl.inference.contrasts",
    "cost_per": "lpmppl.inference.contrasts",
    "fates": "lpmppl.inference.contrasts",
    "distil": "lpmppl.inference.distil",
    "fit_utility": "lpmppl.inference.utility",
    "search": "lpmppl.inference.search",
    "refine": "lpmppl.inference.refine",
    "sensitivity": "lpmppl.inference.sensitivity",
    "audit": "lpmppl.inference.audit",
    "global_sensitivity": "lpmppl.inference.global_sensitivity",
    "fidelity": "lpmppl.inference.fidelity",
    "fidelity_text": "lpmppl.inference.fidelity",
    "error_budget": "lpmppl.inference.error_budget",
    "surveyed_budget": "lpmppl.inference.error_budget",
    "omitted": "lpmppl.inference.omitted",
    "rephrased": "lpmppl.inference.rephrasing",
    "choose_attributes": "lpmppl.inference.attributes",
    "weigh": "lpmppl.inference.weights",
    "likelihood": "lpmppl.inference.likelihood",
    "attribute": "lpmppl.inference.attribution",
    "attribute_groups": "lpmppl.inference.attribution",
    "attribute_layers": "lpmppl.inference.attribution",
    "attribute_substeps": "lpmppl.inference.attribution",
    "disparity": "lpmppl.inference.disparities",
    "Simulator": "lpmppl.inference.simulator",
    "CalibNN": "lpmppl.inference.calibnn",
    "FederatedCalibNN": "lpmppl.inference.federated",
    "SplitCalibNN": "lpmppl.inference.split",
    "Act": "lpmppl.inference.policies",
    "Reported": "lpmppl.effects.handlers.reported",
    "SecretShared": "lpmppl.effects.handlers.sharing",
    "Sharded": "lpmppl.effects.handlers.sharded",
    "Compared": "lpmppl.effects.opening",
    "Custodian": "lpmppl.effects.opening",
    "Noised": "lpmppl.effects.opening",
    "Trigger": "lpmppl.inference.policies",
}
_MODULES = {"nyc": "lpmppl.models.nyc", "report": "lpmppl.report"}

__all__ = [
    "Act", "CalibNN", "Compared", "Custodian", "FederatedCalibNN", "Noised", "Reported", "SecretShared", "Sharded",
    "Simulator", "SplitCalibNN", "Trigger", "attribute", "attribute_groups", "attribute_layers", "attribute_substeps",
    "audit", "calibrate", "calibrate_exactly", "choose_attributes", "contrast", "cost_per", "counterfactual",
    "create", "disparity", "distil", "error_budget", "fates", "fidelity", "fidelity_text", "fit_utility",
    "global_sensitivity", "likelihood", "nyc", "omitted", "refine", "rephrased", "report", "run", "search",
    "sensitivity", "surveyed_budget", "weigh",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a verb or module when it is first asked for, so that `import lpmppl` stays light."""
    if name in _VERBS:
        value = getattr(importlib.import_module(_VERBS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'lpmppl' has no attribute '{name}'")
    globals()[name] = value
    return value
