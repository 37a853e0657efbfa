"""The probabilities of a language model's answers are those of constrained sampling."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lpmppl.effects.language.local import Local, Sampling
from lpmppl.errors import InputError, LpmError
from tests.effects.language.tiny import saved, tiny

PROMPTS = ("You are old. Do you isolate?", "You are young, and have been ill for a week. Do you isolate today?")
TEXTS = [*PROMPTS, "isolate go on", "mask no mask"]


@pytest.fixture(scope="module")
def model():
    return tiny(TEXTS, sharp=3.0)


@pytest.mark.parametrize("options", [("isolate", "go on"), ("yes", "no", "isolate")])
def test_probabilities_are_the_shares_of_sampled_answers(model, options):
    """The failure rate is below 1e-3: four standard errors of each of at most six shares."""
    exact, many = np.array(Local(model).chances(PROMPTS, options)), 600
    assert exact.sum(-1) == pytest.approx(1.0)
    assert (exact > 0.01).all()
    found = np.zeros_like(exact)

    def keep(k: int, ordinal: int, answer: int | None) -> None:
        assert answer is not None
        found[k, answer] += 1 / many

    Sampling(model).answers(PROMPTS, options, [range(many)] * len(PROMPTS), keep)
    assert (np.abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / many)).all()


@pytest.mark.parametrize("options", [("isolate", "go on"), ("mask on", "mask"), ("yes, always", "yes"), ("a|b", "a")])
def test_probabilities_are_those_of_every_way_to_write_an_option(model, options):
    """Against every way to split the options into tokens, each scored by a run of the model of its own."""
    tokenizer, network = model.hf_tokenizer, model.model
    spelt = {tokenizer.convert_tokens_to_string([w]): t for w, t in tokenizer.get_vocab().items()}
    spelt.pop(tokenizer.eos_token)

    def ways(text: str) -> list[list[int]]:
        if not text:
            return [[]]
        heads = [n for n in range(1, len(text) + 1) if text[:n] in spelt]
        return [[spelt[text[:n]], *rest] for n in heads for rest in ways(text[n:])]

    every = [(o, way) for o, option in enumerate(options) for way in ways(option)]
    begun = {(): set()}
    for _, way in every:
        for n, token in enumerate([*way, None]):
            begun.setdefault(tuple(way[:n]), set()).add(token)
    prompt = tokenizer(PROMPTS[0])["input_ids"]
    found = [0.0, 0.0]
    for option, way in every:
        log = 0.0
        for n, token in enumerate([*way, None]):
            allowed = sorted(begun[tuple(way[:n])], key=str)
            if allowed == [None]:
                continue
            with torch.no_grad():
                logits = network(torch.tensor([[*prompt, *way[:n]]])).logits[0, -1].double()
            picked = [tokenizer.eos_token_id if t is None else t for t in allowed]
            log += float(logits[picked].log_softmax(-1)[allowed.index(token)])
        found[option] += np.exp(log)
    assert len(every) >= 2
    assert min(found) > 1e-3
    assert sum(found) == pytest.approx(1.0)
    assert Local(model).chances(PROMPTS[:1], options)[0] == pytest.approx(found, abs=1e-3)


def test_batches_of_any_size_give_the_same(model):
    one = np.array(Local(model, batch=1).chances(PROMPTS, ("isolate", "go on")))
    assert np.array(Local(model, batch=64).chances(PROMPTS, ("isolate", "go on"))) == pytest.approx(one, abs=1e-5)


def test_the_global_random_state_stays_as_it_was(model):
    before = torch.random.get_rng_state()
    Sampling(model).answers(PROMPTS[:1], ("isolate", "go on"), [[0, 1]], lambda *_: None)
    assert torch.equal(before, torch.random.get_rng_state())


def test_samples_are_the_same_whenever_they_are_asked_for(model):
    def asked() -> list[int | None]:
        got: list[int | None] = []
        Sampling(model).answers(PROMPTS[:1], ("isolate", "go on"), [range(20)], lambda k, o, a: got.append(a))
        return got

    torch.manual_seed(1)
    first = asked()
    torch.manual_seed(2)
    assert first == asked()
    assert len(set(first)) == 2


def test_models_in_a_folder_are_loaded_and_known_by_their_weights(tmp_path: Path):
    first, other = (Local(str(saved(tmp_path / str(seed), TEXTS, seed))) for seed in (0, 1))
    assert first.name == Local(tmp_path / "0").name
    assert first.name.split("@")[1] != other.name.split("@")[1]
    assert first.chances(PROMPTS, ("yes", "no")) != other.chances(PROMPTS, ("yes", "no"))


def test_what_is_no_model_is_refused(tmp_path: Path, model):
    with pytest.raises(InputError, match="can't be loaded"):
        Local(tmp_path)
    with pytest.raises(InputError, match="the model is a int"):
        Local(3)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 16}')
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="can't be loaded"):
        Local(tmp_path)
    with pytest.raises(InputError, match="batch=0"):
        Local(model, batch=0)
    with pytest.raises(InputError, match="temperature=0"):
        Sampling(model, temperature=0)


def test_what_a_model_can_not_read_or_write_is_refused(model):
    local = Local(model)
    with pytest.raises(InputError, match="can't write the option '😀'"):
        local.chances(PROMPTS, ("😀", "go on"))
    with pytest.raises(InputError, match="a prompt is empty"):
        local.chances([""], ("isolate", "go on"))
    with pytest.raises(InputError, match=r"a prompt has \d+ tokens, and the model reads 512"):
        local.chances(["mask " * 2000], ("isolate", "go on"))
    with pytest.raises(InputError, match="'mask' begins 'mask on'"):
        Sampling(model).answers(PROMPTS, ("mask", "mask on"), [[0], [0]], lambda *_: None)


def test_options_with_more_ways_to_write_them_than_can_be_followed_are_refused():
    """Of an untrained model no way to write a long option is likely."""
    long = "stay at home all day long"
    with pytest.raises(LpmError, match="shorten the options"):
        Local(tiny([long, *TEXTS], sharp=0.0)).chances(PROMPTS[:1], (long, long[::-1]))
