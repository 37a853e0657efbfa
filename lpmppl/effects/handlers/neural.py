"""Behaviour from a network: probabilities that are a smooth function of who decides and of what they observe."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lpmppl._compat import Message, Messenger
from lpmppl.effects.choices import Choices
from lpmppl.effects.features import Features
from lpmppl.errors import InputError, nearest

__all__ = ["ChoiceNetwork", "Neural"]


class ChoiceNetwork(nn.Module):
    """A network that decides: labels of attributes and numbers that are observed to a score for each option.

    It is made for the decisions of some choices: it knows their options, the labels of their attributes, and by how
    much the numbers that they observed vary. Without hidden layers it is the multinomial logit of all its inputs.

    Args:
        choices: the choices.
        hidden: the sizes of its hidden layers.
        seed: the seed of its first weights.
    Raises:
        InputError: for sizes that aren't whole numbers above 0.
    """

    def __init__(self, choices: Choices, hidden: Sequence[int] = (32, 32), seed: int = 0) -> None:
        if not isinstance(hidden, Sequence) or any(
            isinstance(h, bool) or not isinstance(h, int) or h < 1 for h in hidden
        ):
            raise InputError(f"hidden={hidden!r}: give whole numbers, 1 or more, or [] for no hidden layer")
        if not choices.attributes and not choices.observed:
            raise InputError(
                f"choices of decision '{choices.decision}' have neither attributes nor observations to read"
            )
        super().__init__()
        self.decision, self.options = choices.decision, tuple(choices.options)
        self.attributes = {name: tuple(labels) for name, labels in choices.attributes.items()}
        self.observed = tuple(choices.observed)
        seen = torch.stack([*choices.observed.values(), torch.ones_like(choices.weight)], dim=-1)[:, :-1]
        share = (choices.weight / choices.weight.sum()).unsqueeze(-1)
        centre = (share * seen).sum(0)
        spread = (share * (seen - centre) ** 2).sum(0).sqrt()
        self.hidden = tuple(hidden)
        # What never varies is no input: the network can't know what another value of it would do.
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", centre)
        self.register_buffer("scale", torch.where(spread > 1e-9, 1.0 / spread.clamp(min=1e-9), 0.0))
        sizes = [sum(map(len, self.attributes.values())) + len(self.observed), *hidden, len(self.options)]
        chance = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(_layer(a, b, chance) for a, b in pairwise(sizes))

    def inputs(self, features: Features) -> Tensor:
        """What the network reads of features, float64 of shape (…, K, inputs): labels as 0 or 1, numbers to scale."""
        inputs = [features.label(name, label) for name, labels in self.attributes.items() for label in labels]
        inputs += [(features[name] - self.centre[k]) * self.scale[k] for k, name in enumerate(self.observed)]
        return torch.stack(torch.broadcast_tensors(features.zero, *inputs)[1:], dim=-1)

    def scores(self, inputs: Tensor) -> Tensor:
        """The scores of the options, float64 of shape (…, K, A), from what the network reads."""
        *hidden, last = self.layers
        for layer in hidden:
            inputs = torch.nn.functional.silu(layer(inputs))
        scores: Tensor = last(inputs)
        return scores

    def chance(self, features: Features) -> Tensor:
        """The probabilities of the options, float64 of shape (…, K, A)."""
        return self.scores(self.inputs(features)).softmax(-1)

    def save(self, path: str | Path) -> None:
        """Write the network to a file, whole or not at all, from which `ChoiceNetwork.load` reads it.

        Raises:
            InputError: for a path that can't be written.
        """
        said = {
            "decision": self.decision,
            "options": self.options,
            "attributes": self.attributes,
            "observed": self.observed,
            "hidden": self.hidden,
        }
        content, target = io.BytesIO(), Path(path)
        torch.save({"network": json.dumps(said), "weights": self.state_dict()}, content)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            part.write_bytes(content.getbuffer())
            part.replace(target)
        except OSError as e:
            raise InputError(f"the network can't be written to {path} ({e.strerror or e}): give another path") from e
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    @classmethod
    def load(cls, path: str | Path) -> ChoiceNetwork:
        """Read a network from a file.

        Raises:
            InputError: for a file that isn't there, or isn't of a network that decides.
        """
        try:
            kept = torch.load(path, weights_only=True)
            said = json.loads(kept["network"])
            attributes = {name: tuple(labels) for name, labels in said["attributes"].items()}
            one = torch.ones(1, dtype=torch.float64)
            chance = torch.full((1, len(said["options"])), 1.0 / len(said["options"]), dtype=torch.float64)
            codes = torch.zeros(1, len(attributes), dtype=torch.int64)
            seen = dict.fromkeys(said["observed"], one)
            like = Choices(said["decision"], tuple(said["options"]), attributes, codes, seen, chance, one)
            network = cls(like, said["hidden"])
            network.load_state_dict(kept["weights"])
        except FileNotFoundError as e:
            raise InputError(f"there is no network {path}") from e
        except Exception as e:
            # What unpickling raises may be anything.
            raise InputError(f"{path} can't be read as a network that decides: {e}") from e
        return network


def _layer(inputs: int, outputs: int, chance: torch.Generator) -> nn.Linear:
    """A layer whose first weights are as torch has them, without torch's own random state."""
    layer = skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)
    for weight in (layer.weight, layer.bias):
        nn.init.uniform_(weight, -(inputs**-0.5), inputs**-0.5, chance)
    return layer


class Neural(Messenger):
    r"""Give decisions the probabilities of networks, which may be differentiated and shifted.

    .. math:: P(a \mid k) \propto e^{f_a(x_k, o_k) + \delta_a}

    with the network's score f of what the archetype is and observes, and a shift δ of the option's log-odds: the
    parameter by which such behaviour is calibrated.

    Args:
        networks: the network of each decision, by name, such as `distil` makes.
        shift: δ by decision and option, numbers, or tensors whose last dimension is 1; nothing by default.
    Raises:
        InputError: for a shift of a decision or option that there isn't, or that isn't finite; in a decision, for one
            without a network, with other options, or without what the network reads.
    """

    def __init__(
        self, networks: Mapping[str, ChoiceNetwork], shift: Mapping[str, Mapping[str, float | Tensor]] | None = None
    ) -> None:
        super().__init__()
        self.networks = dict(networks)
        self.shift = {decision: dict(options) for decision, options in (shift or {}).items()}
        for name, network in self.networks.items():
            if not isinstance(network, ChoiceNetwork):
                raise InputError(f"decision '{name}': {type(network).__name__} was given; give a ChoiceNetwork")
        for decision, options in self.shift.items():
            if decision not in self.networks:
                raise InputError(nearest("decision in the shift", decision, self.networks))
            for option, value in options.items():
                if option not in self.networks[decision].options:
                    known = self.networks[decision].options
                    raise InputError(nearest(f"option of decision '{decision}' in the shift", option, known))
                if not bool(torch.isfinite(torch.as_tensor(value).detach()).all()):
                    raise InputError(
                        f"decision '{decision}', option '{option}': the shift is {value}; give a finite number"
                    )

    def _pyro_decide(self, msg: Message) -> None:
        if msg["done"]:
            return
        name, archetypes, options, context = msg["args"]
        if name not in self.networks:
            raise InputError(nearest("decision", name, self.networks))
        network = self.networks[name]
        if tuple(options) != network.options:
            raise InputError(
                f"decision '{name}' is among {', '.join(options)}, but its network chooses among "
                f"{', '.join(network.options)}; train one on choices of this decision"
            )
        _known(network, context)
        features = Features(name, archetypes, context)
        scores = network.scores(network.inputs(features))
        given = [features.parameter(self.shift.get(name, {}).get(option, 0.0)) for option in options]
        shift = [torch.as_tensor(x, dtype=scores.dtype, device=scores.device) for x in given]
        scores = scores + torch.stack(torch.broadcast_tensors(*shift), dim=-1)
        msg["value"] = scores.softmax(-1).to(torch.get_default_dtype())
        msg["done"] = True


def _known(network: ChoiceNetwork, context: Mapping[str, Any]) -> None:
    """Refuse labels that the network never saw."""
    labels: Mapping[str, Sequence[str]] = context.get("attributes", {})
    for name, known in network.attributes.items():
        for label in labels.get(name, ()):
            if label not in known:
                raise InputError(
                    nearest(f"{name} for the network of decision '{network.decision}'", label, known)
                    + "; train it on choices of these archetypes"
                )
