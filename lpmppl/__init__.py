"""Large Population Models as Pyro and ChiRho programs: write a society once, then simulate it, fit it, or ask what if.

A society is a `Model`: its people, who meets whom, what befalls them in a day, and which totals the world may see. It
is written once; verbs and handlers say what is done with it.

>>> import lpmppl as lpm
>>> people = lpm.nyc.population(1_000)  # of 8.4 million; built once, then cached
>>> model = lpm.nyc.sir(people, by={"borough": "borough"})  # or seirm, or the whole pandemic
>>> begun = {"initial_infected": 0.05}

Simulate it:

>>> infections = lpm.run(model, days=6, seed=0, set=begun)["prior_predictive"]["infections"]
>>> infections.dims
('chain', 'draw', 'day', 'borough')

Ask what if, of the same people with the same chance:

>>> tree = lpm.counterfactual(model, {"transmission": 0.5}, at=2, days=6, set=begun)
>>> bool(lpm.contrast(tree)["infections"].sel(estimate="mean") < 0)
True

Calibrate it: the posterior of parameters given what was counted.

>>> data = {"infections": infections.sum(["chain", "draw", "borough"]).values}
>>> quick = {"rounds": 1, "rows": 12, "steps": 20, "restarts": 1, "simulations": 2, "draws": 50}
>>> lpm.calibrate(model, data, parameters=["beta"], set=begun, **quick)["posterior"]["beta"].dims
('chain', 'draw')

Differentiate it: how a total moves with a parameter.

>>> bool(lpm.sensitivity(model, "infections", ["beta"], days=6, draws=2, set=begun, audit=False)["value"] > 0)
True

Keep it private, the same numbers where nobody sees anybody's state; or spread it over ranks, by `lpm.Sharded`.

>>> with lpm.SecretShared(parties=2, quiet=True):
...     bool((lpm.run(model, days=6, seed=0, set=begun)["prior_predictive"]["infections"] == infections).all())
True

Write one of your own, such as a rumour in offices (`help(lpm.Model)` says what each part is):

>>> class Rumour(lpm.Model):
...     name, parameters, environment, tallies = "rumour", {}, {}, {"heard": "who hears it"}
...     def __init__(self, people):
...         self.population, self.office = people, people.network("office")
...     def initial(self, theta, start=0.0):
...         return {"knows": self.population.ids % 20 == 0, "hazard": 0.0 * self.population.ids.double()}
...     def day(self, theta):
...         def step(s):
...             hearing = lpm.Exposure(s["hazard"], lpm.aggregate(s["knows"], self.office), at_risk=~s["knows"])
...             with self.population.plate():
...                 new, _ = lpm.happens("hearing", hearing)
...             lpm.tally("heard", new)
...             return {"knows": s["knows"] | new, "hazard": hearing.after}
...         return step
>>> offices = Rumour(lpm.Population.of({"office": [k // 50 for k in range(1_000)]}))
>>> int(lpm.run(offices, days=60)["prior_predictive"]["heard"].sum())  # of 1,000, but for those who know at first
950
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpmppl import archetype as archetype
    from lpmppl import report as report
    from lpmppl.effects.distributions import Exposure as Exposure
    from lpmppl.effects.handlers.reported import Reported as Reported
    from lpmppl.effects.handlers.sharded import Sharded as Sharded
    from lpmppl.effects.handlers.sharing import SecretShared as SecretShared
    from lpmppl.effects.opening import Compared as Compared
    from lpmppl.effects.opening import Custodian as Custodian
    from lpmppl.effects.opening import Noised as Noised
    from lpmppl.effects.ops import aggregate as aggregate
    from lpmppl.effects.ops import decide as decide
    from lpmppl.effects.ops import happens as happens
    from lpmppl.effects.ops import substep as substep
    from lpmppl.effects.ops import tally as tally
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
    from lpmppl.inference.incentive import price as price
    from lpmppl.inference.likelihood import likelihood as likelihood
    from lpmppl.inference.omitted import omitted as omitted
    from lpmppl.inference.policies import Act as Act
    from lpmppl.inference.policies import Trigger as Trigger
    from lpmppl.inference.refine import refine as refine
    from lpmppl.inference.rephrasing import rephrased as rephrased
    from lpmppl.inference.run import run as run
    from lpmppl.inference.search import search as search
    from lpmppl.inference.sensitivity import sensitivity as sensitivity
    from lpmppl.inference.simulator import Simulator as Simulator
    from lpmppl.inference.split import SplitCalibNN as SplitCalibNN
    from lpmppl.inference.utility import fit_utility as fit_utility
    from lpmppl.inference.verify import verify as verify
    from lpmppl.inference.weights import weigh as weigh
    from lpmppl.models import nyc as nyc
    from lpmppl.models.archetypes import Archetypes as Archetypes
    from lpmppl.models.model import Model as Model
    from lpmppl.models.model import Parameter as Parameter
    from lpmppl.models.networks import Edges as Edges
    from lpmppl.models.networks import Groups as Groups
    from lpmppl.models.population import Population as Population
    from lpmppl.models.substep import Substep as Substep
    from lpmppl.models.substep import compose as compose
    from lpmppl.simulation import create as create

__version__ = "0.1.0"

_VERBS = {
    "Exposure": "lpmppl.effects.distributions",
    "Reported": "lpmppl.effects.handlers.reported",
    "Sharded": "lpmppl.effects.handlers.sharded",
    "SecretShared": "lpmppl.effects.handlers.sharing",
    "Compared": "lpmppl.effects.opening",
    "Custodian": "lpmppl.effects.opening",
    "Noised": "lpmppl.effects.opening",
    "aggregate": "lpmppl.effects.ops",
    "decide": "lpmppl.effects.ops",
    "happens": "lpmppl.effects.ops",
    "substep": "lpmppl.effects.ops",
    "tally": "lpmppl.effects.ops",
    "choose_attributes": "lpmppl.inference.attributes",
    "attribute": "lpmppl.inference.attribution",
    "attribute_groups": "lpmppl.inference.attribution",
    "attribute_layers": "lpmppl.inference.attribution",
    "attribute_substeps": "lpmppl.inference.attribution",
    "audit": "lpmppl.inference.audit",
    "CalibNN": "lpmppl.inference.calibnn",
    "calibrate": "lpmppl.inference.calibrate",
    "contrast": "lpmppl.inference.contrasts",
    "cost_per": "lpmppl.inference.contrasts",
    "fates": "lpmppl.inference.contrasts",
    "counterfactual": "lpmppl.inference.counterfactual",
    "disparity": "lpmppl.inference.disparities",
    "distil": "lpmppl.inference.distil",
    "error_budget": "lpmppl.inference.error_budget",
    "surveyed_budget": "lpmppl.inference.error_budget",
    "calibrate_exactly": "lpmppl.inference.exactly",
    "FederatedCalibNN": "lpmppl.inference.federated",
    "fidelity": "lpmppl.inference.fidelity",
    "fidelity_text": "lpmppl.inference.fidelity",
    "global_sensitivity": "lpmppl.inference.global_sensitivity",
    "price": "lpmppl.inference.incentive",
    "likelihood": "lpmppl.inference.likelihood",
    "omitted": "lpmppl.inference.omitted",
    "Act": "lpmppl.inference.policies",
    "Trigger": "lpmppl.inference.policies",
    "refine": "lpmppl.inference.refine",
    "rephrased": "lpmppl.inference.rephrasing",
    "create": "lpmppl.simulation",
    "run": "lpmppl.inference.run",
    "search": "lpmppl.inference.search",
    "sensitivity": "lpmppl.inference.sensitivity",
    "Simulator": "lpmppl.inference.simulator",
    "SplitCalibNN": "lpmppl.inference.split",
    "fit_utility": "lpmppl.inference.utility",
    "verify": "lpmppl.inference.verify",
    "weigh": "lpmppl.inference.weights",
    "Archetypes": "lpmppl.models.archetypes",
    "Model": "lpmppl.models.model",
    "Parameter": "lpmppl.models.model",
    "Edges": "lpmppl.models.networks",
    "Groups": "lpmppl.models.networks",
    "Population": "lpmppl.models.population",
    "Substep": "lpmppl.models.substep",
    "compose": "lpmppl.models.substep",
}
_MODULES = {"nyc": "lpmppl.models.nyc", "archetype": "lpmppl.archetype", "report": "lpmppl.report"}

__all__ = [
    "Act", "Archetypes", "CalibNN", "Compared", "Custodian", "Edges", "Exposure", "FederatedCalibNN", "Groups",
    "Model", "Noised", "Parameter", "Population", "Reported", "SecretShared", "Sharded", "Simulator",
    "SplitCalibNN", "Substep", "Trigger", "aggregate", "archetype", "attribute", "attribute_groups",
    "attribute_layers", "attribute_substeps", "audit", "calibrate", "calibrate_exactly", "choose_attributes",
    "compose", "contrast", "cost_per", "counterfactual", "create", "decide", "disparity", "distil", "error_budget",
    "fates", "fidelity", "fidelity_text", "fit_utility", "global_sensitivity", "happens", "likelihood", "nyc",
    "omitted", "price", "refine", "rephrased", "report", "run", "search", "sensitivity", "substep",
    "surveyed_budget", "tally", "verify", "weigh",
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
