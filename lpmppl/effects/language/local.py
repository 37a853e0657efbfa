"""A language model in this process: the probabilities of its answers, exactly, or answers that it samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lpmppl.effects.language.source import Choices, Keep
from lpmppl.errors import InputError, LpmError

__all__ = ["Local", "Sampling"]

_NEGLIGIBLE = 1e-7
"""The probability below which a way to write an answer isn't followed any further."""


@dataclass(frozen=True)
class _Path:
    """Tokens after a prompt: the beginning of an answer."""

    prompt: int
    tokens: tuple[int, ...]
    state: int
    log: float


class Local:
    r"""The probabilities with which a language model answers, given that it answers with one of the options.

    Every way to write an option in tokens is followed, with the probabilities of those tokens alone that may come next:

    .. math:: P(a) = \sum_{w \in W(a)} \prod_l \frac{p(w_l \mid w_{<l})}{\sum_{v\ \mathrm{allowed}} p(v \mid w_{<l})}

    which is what the share of an option among answers by constrained sampling goes to (eq. 5 of the LPM paper).

    Args:
        model: what `outlines.from_transformers` gives, or the path or name of a model that transformers can load.
        batch: how many sequences go through the model at once.
    Raises:
        InputError: for a model that can't be loaded.
        LpmError: where Outlines or transformers isn't installed.
    Source: Willard and Louf, "Efficient guided generation for large language models", arXiv:2307.09702 (2023).
    """

    def __init__(self, model: Any, batch: int = 32) -> None:
        if batch < 1:
            raise InputError(f"batch={batch}: let one sequence or more go through the model at once")
        self.model, self.batch = _loaded(model), batch

    @cached_property
    def name(self) -> str:
        """The model's own name and what tells its weights from others."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.model.state_dict().items()):
            few = weight.detach().reshape(-1)[:64].float().cpu()
            digest.update(f"{name}{tuple(weight.shape)}{few.tolist()}".encode())
        return f"{getattr(self.model.model.config, 'name_or_path', '') or 'local'}@{digest.hexdigest()[:12]}"

    def chances(self, prompts: Sequence[str], options: Sequence[str]) -> list[Choices]:
        """The probability of each option, by prompt."""
        index = _generator(self.model, options).logits_processor.index
        asked = [self._tokens(prompt) for prompt in prompts]
        found = torch.zeros(len(prompts), len(options), dtype=torch.float64)
        ahead = [_Path(k, (), index.get_initial_state(), 0.0) for k in range(len(prompts))]
        with torch.no_grad():
            while ahead:
                paths, ahead = ahead, []
                for path, log in self._next(paths, asked, index):
                    if path is not None:
                        ahead.append(path)
                        continue
                    done, mass = log
                    found[done.prompt, self._option(done.tokens, options)] += mass
        return [row.tolist() for row in found / found.sum(-1, keepdim=True)]

    def _next(
        self, paths: list[_Path], asked: list[list[int]], index: Any
    ) -> Iterator[tuple[_Path | None, tuple[_Path, float]]]:
        """Where each path may go on to, and those that end, with their probability."""
        end = self.model.tokenizer.eos_token_id
        open_paths = []
        for path in paths:
            if list(index.get_allowed_tokens(path.state)) == [end]:
                yield None, (path, float(torch.tensor(path.log, dtype=torch.float64).exp()))
            else:
                open_paths.append(path)
        for first in range(0, len(open_paths), self.batch):
            some = open_paths[first : first + self.batch]
            logits = self._logits([[*asked[p.prompt], *p.tokens] for p in some])
            for path, row in zip(some, logits, strict=True):
                allowed = list(index.get_allowed_tokens(path.state))
                logs = row[allowed].log_softmax(-1).tolist()
                for token, log in zip(allowed, logs, strict=True):
                    mass = float(torch.tensor(path.log + log, dtype=torch.float64).exp())
                    if mass < _NEGLIGIBLE:
                        continue
                    if token == end:
                        yield None, (path, mass)
                        continue
                    state = index.get_next_state(path.state, token)
                    onward = _Path(path.prompt, (*path.tokens, token), state, path.log + log)
                    yield onward, (onward, mass)

    def _logits(self, sequences: list[list[int]]) -> Tensor:
        """The logits of what comes after each sequence, float64 of shape (n, vocabulary)."""
        longest = max(len(s) for s in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for k, sequence in enumerate(sequences):
            ids[k, longest - len(sequence) :] = torch.tensor(sequence)
            mask[k, longest - len(sequence) :] = 1
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        network = self.model.model
        where = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        out = network(**{name: x.to(network.device) for name, x in where.items()})
        return out.logits[:, -1].double().cpu()

    def _tokens(self, prompt: str) -> list[int]:
        ids, _ = self.model.tokenizer.encode(self.model.type_adapter.format_input(prompt))
        return ids[0].tolist()

    @cached_property
    def _spelt(self) -> dict[int, str]:
        tokenizer = self.model.tokenizer
        return {token: tokenizer.convert_token_to_string(word) for word, token in tokenizer.get_vocab().items()}

    def _option(self, tokens: Sequence[int], options: Sequence[str]) -> int:
        return list(options).index("".join(self._spelt[token] for token in tokens))


class Sampling:
    """Answers that a language model in this process samples, each constrained to the options.

    `Local` has their probabilities at less cost; this is for comparison.

    Args:
        model: as for `Local`.
        temperature: by which logits are divided, above 0.
    """

    def __init__(self, model: Any, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"temperature={temperature}: give a number above 0")
        self._local, self.temperature = Local(model), temperature

    @property
    def name(self) -> str:
        """The model and its temperature."""
        return f"{self._local.name} temperature={self.temperature:g}"

    def answers(
        self, prompts: Sequence[str], options: Sequence[str], wanted: Sequence[Sequence[int]], keep: Keep
    ) -> None:
        """Ask each prompt once for every number of a sample that is wanted of it, and tell `keep` what it chose."""
        generator = _generator(self._local.model, options)
        longest = max(len(self._local.model.hf_tokenizer(o)["input_ids"]) for o in options)
        most = 1 + max(longest, *(len(o) for o in options))
        for k, (prompt, ordinals) in enumerate(zip(prompts, wanted, strict=True)):
            if not ordinals:
                continue
            with torch.random.fork_rng():
                torch.manual_seed(seed_of(prompt, ordinals[0]))
                found = generator.batch(
                    [prompt], do_sample=True, temperature=self.temperature, top_k=0, top_p=1.0, max_new_tokens=most,
                    num_return_sequences=len(ordinals),
                )[0]  # fmt: skip
            for ordinal, answer in zip(ordinals, [found] if isinstance(found, str) else found, strict=True):
                keep(k, ordinal, list(options).index(answer) if answer in options else None)


def seed_of(prompt: str, ordinal: int) -> int:
    """The seed of the samples of a prompt's answers from one on, the same whenever they are asked."""
    digest = hashlib.sha256(f"{ordinal}\n{prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _generator(model: Any, options: Sequence[str]) -> Any:
    from outlines.generator import SteerableGenerator

    # The first alternative that fits ends an answer: of "mask" and "mask on" the longer one has to come first.
    longest_first = tuple(sorted(options, key=len, reverse=True))
    return SteerableGenerator(model, Literal[longest_first], backend_name="outlines_core")


def _loaded(model: Any) -> Any:
    try:
        import outlines
        import transformers
    except ImportError as e:
        raise LpmError("a language model needs Outlines and transformers: pip install 'lpmppl[llm]'") from e
    if isinstance(model, outlines.models.Transformers):
        return model
    if not isinstance(model, str | Path):
        raise InputError(f"the model is a {type(model).__name__}; give outlines.from_transformers(…), a path or a name")
    try:
        weights = transformers.AutoModelForCausalLM.from_pretrained(model)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as e:
        raise InputError(f"the language model '{model}' can't be loaded: {str(e).splitlines()[0]}") from e
    weights.eval()
    return outlines.from_transformers(weights, tokenizer)
