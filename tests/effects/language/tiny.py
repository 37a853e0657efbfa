"""A language model of a few thousand weights that nobody trained, made on the spot, with a tokenizer of its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["saved", "scores", "tiny"]


def tiny(texts: Sequence[str], seed: int = 0, size: int = 400, sharp: float = 6.0) -> Any:
    """What `outlines.from_transformers` gives of a random GPT-2 of two layers, with a vocabulary learnt from texts."""
    import outlines

    weights, tokenizer = _made(texts, seed, size, sharp)
    return outlines.from_transformers(weights, tokenizer)


def scores(model: Any, text: str) -> tuple[list[str], list[float | None]]:
    """The tokens of a text, and one that is made after it, with their log-probabilities, as a server says them."""
    ids = model.hf_tokenizer(text)["input_ids"]
    with torch.no_grad():
        logs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    ids.append(int(logs[-1].argmax()))
    return [model.hf_tokenizer.decode([i]) for i in ids], [None, *(float(logs[n, i]) for n, i in enumerate(ids[1:]))]


def saved(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """The same in a folder, as transformers loads it."""
    weights, tokenizer = _made(texts, seed, 400, 6.0)
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _made(texts: Sequence[str], seed: int, size: int, sharp: float) -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, padding_side="left", eos_token="<end>", bos_token="<end>", pad_token="<end>"
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = GPT2LMHeadModel(config)
    with torch.no_grad():
        # Untrained weights of the usual size choose nearly uniformly, whatever they are asked.
        weights.transformer.wte.weight.mul_(sharp)
    weights.generation_config.pad_token_id = 0
    return weights.eval(), tokenizer
