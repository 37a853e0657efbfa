"""A language model in this process: the probabilities of its answers, exactly, or answers that it samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lpmppl.effects.language.source import Choices, Keep, seed_of
from lpmppl.errors import InputError, LpmError

__all__ = ["Local", "Sampling"]

_NEGLIGIBLE, _LOST = 1e-5, 0.01
"""The probability below which a way to write an answer isn't followed any further, and how much may be lost by that."""


@dataclass(frozen=True)
class _Path:
    """Tokens after a prompt: the beginning of an answer."""

    prompt: int
    tokens: tuple[int, ...]
    text: str
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
            flat = weight.detach().reshape(-1)
            few = flat[:: max(1, len(flat) // 64)].float().cpu()
            digest.update(f"{name}{tuple(weight.shape)}{few.tolist()}".encode())
        tokenizer = self.model.hf_tokenizer
        digest.update(f"{sorted(tokenizer.get_vocab().items())}{tokenizer.chat_template}".encode())
        known = getattr(self.model.model.config, "name_or_path", "")
        return f"{Path(known).name if Path(known).is_dir() else known or 'local'}@{digest.hexdigest()[:12]}"

    def chances(self, prompts: Sequence[str], options: Sequence[str]) -> list[Choices]:
        """The probability of each option, by prompt.

        Raises:
            InputError: for a prompt that is empty or longer than the model reads, or an option that its tokens can't
                write.
            LpmError: where there are so many ways to write the options that the likely ones aren't all of them.
        """
        for option in options:
            self._check(option)
        asked = [self._tokens(prompt) for prompt in prompts]
        found = torch.zeros(len(prompts), len(options), dtype=torch.float64)
        ahead = [_Path(k, (), "", 0.0) for k in range(len(prompts))]
        with torch.no_grad():
            while ahead:
                paths, ahead = ahead, []
                for path, ends in self._next(paths, asked, options):
                    if ends:
                        found[path.prompt, list(options).index(path.text)] += math.exp(path.log)
                    elif path.log > math.log(_NEGLIGIBLE):
                        ahead.append(path)
        total = found.sum(-1, keepdim=True)
        if not bool((total > 1.0 - _LOST).all()):
            raise LpmError(
                f"the likely ways to write {', '.join(options)} have a probability of {float(total.min()):.2g} only; "
                "shorten the options, or sample answers"
            )
        return [row.tolist() for row in found / total]

    def _next(self, paths: list[_Path], asked: list[list[int]], options: Sequence[str]) -> Iterator[tuple[_Path, bool]]:
        """Where each path may go on to, and those that end."""
        open_paths = []
        for path in paths:
            allowed = self._allowed(path.text, options)
            if list(allowed) == [self._end]:
                yield path, True
            else:
                open_paths.append((path, allowed))
        for first in range(0, len(open_paths), self.batch):
            some = open_paths[first : first + self.batch]
            logits = self._logits([[*asked[p.prompt], *p.tokens] for p, _ in some])
            for (path, allowed), row in zip(some, logits, strict=True):
                for (token, spelt), log in zip(
                    allowed.items(), row[list(allowed)].log_softmax(-1).tolist(), strict=True
                ):
                    onward = _Path(path.prompt, (*path.tokens, token), path.text + spelt, path.log + log)
                    yield onward, token == self._end

    def _allowed(self, text: str, options: Sequence[str]) -> dict[int, str]:
        """The tokens that may come after the beginning of an answer, with how they are spelt."""
        allowed = {}
        for option in options:
            if option == text:
                allowed[self._end] = ""
            elif option.startswith(text):
                rest = option[len(text) :]
                heads = (rest[:n] for n in range(1, len(rest) + 1))
                allowed |= {token: head for head in heads for token in self._spelt.get(head, ())}
        return allowed

    def _check(self, option: str) -> None:
        """Refuse an option that no row of tokens spells."""
        reached = {0}
        for n in range(len(option)):
            if n in reached:
                reached |= {m for m in range(n + 1, len(option) + 1) if option[n:m] in self._spelt}
        if len(option) not in reached:
            raise InputError(f"the model's tokenizer can't write the option '{option}'; use plain letters")

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
        if not prompt:
            raise InputError("a prompt is empty; give a language model something to read")
        ids, _ = self.model.tokenizer.encode(self.model.type_adapter.format_input(prompt))
        most = getattr(self.model.model.config, "max_position_embeddings", None)
        if most is not None and ids.shape[-1] >= most:
            raise InputError(
                f"a prompt has {ids.shape[-1]} tokens, and the model reads {most}; shorten: {prompt[:80]!r}"
            )
        return list(ids[0].tolist())

    @cached_property
    def _end(self) -> int:
        return int(self.model.tokenizer.eos_token_id)

    @cached_property
    def _spelt(self) -> dict[str, list[int]]:
        """The tokens that are spelt so."""
        tokenizer, found = self.model.tokenizer, dict[str, list[int]]()
        for word, token in tokenizer.get_vocab().items():
            if token != self._end and (spelt := tokenizer.convert_token_to_string(word)):
                found.setdefault(spelt, []).append(token)
        return found


class Sampling:
    """Answers that a language model in this process samples, each constrained to the options.

    `Local` has their probabilities at less cost; this is for comparison, and for options that are too long for that.

    Args:
        model: as for `Local`.
        temperature: by which logits are divided, above 0.
    """

    def __init__(self, model: Any, temperature: float = 1.0) -> None:
        if not 0 < temperature < math.inf:
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
        for option in options:
            if longer := [o for o in options if o != option and o.startswith(option)]:
                raise InputError(f"option '{option}' begins '{longer[0]}', which Outlines can't tell apart; use Local")
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


def _generator(model: Any, options: Sequence[str]) -> Any:
    from outlines.generator import SteerableGenerator

    return SteerableGenerator(model, Literal[tuple(options)], backend_name="outlines_core")


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
        loaded = outlines.from_transformers(weights.eval(), tokenizer)
    except Exception as e:
        # Each part of a damaged folder has errors of its own.
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"the language model '{model}' can't be loaded: {said}") from e
    return loaded
