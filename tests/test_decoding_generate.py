"""Greedy search, sampling and beam search give what ``generate`` of transformers gives, on tiny fp32 models."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from labsupport.decoding import (
    Context,
    TorchStream,
    Xorwow,
    beam_search,
    dialect,
    generate,
    next_logits,
    next_logprobs,
    sequence_logprob,
)

VOCABULARY = 60
SETTINGS = 100


@cache
def tiny(family: str) -> PreTrainedModel:
    """Two layers of random weights, large enough that the distributions are peaked and end tokens fire."""
    torch.manual_seed(0)
    # No end token in the config: each request brings its own.
    shared: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    if family == "gpt2":
        model: PreTrainedModel = GPT2LMHeadModel(
            GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, initializer_range=0.4, **shared)
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                initializer_range=0.4,
                **shared,
            )
        )
    return model.eval()


def their_generate(model: PreTrainedModel, prompt: list[int], **settings: Any) -> Any:
    config = GenerationConfig(pad_token_id=0, return_dict_in_generate=True, output_scores=True, **settings)
    ids = torch.tensor([prompt])
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)


def output_ids(row: torch.Tensor, prompt: list[int], ends: list[int]) -> tuple[int, ...]:
    """The new ids of a row, without the padding after the end token."""
    new = row[len(prompt) :].tolist()
    stops = [i for i, token in enumerate(new) if token in ends]
    return tuple(new[: stops[0] + 1] if stops else new)


def random_request(rng: np.random.Generator) -> tuple[PreTrainedModel, list[int], list[int], int]:
    model = tiny(str(rng.choice(["gpt2", "llama"])))
    prompt = rng.integers(0, VOCABULARY, size=rng.integers(1, 8)).tolist()
    ends = rng.choice(VOCABULARY, size=rng.integers(1, 7), replace=False).tolist()
    return model, prompt, ends, int(rng.integers(1, 14))


def test_greedy_writes_the_same_tokens() -> None:
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(SETTINGS):
        model, prompt, ends, length = random_request(rng)
        theirs = their_generate(model, prompt, do_sample=False, max_new_tokens=length, eos_token_id=ends)
        greedy = dialect("hf", do_sample=False)
        ours = generate(next_logits(model), prompt, greedy, Xorwow(), max_new_tokens=length, end_ids=ends)
        assert ours.tokens == output_ids(theirs.sequences[0], prompt, ends)
        logits = torch.cat(theirs.scores).numpy()  # a greedy request has no processor, so scores are logits
        assert sum(ours.logprobs) == pytest.approx(sequence_logprob(logits, ours.tokens), abs=1e-4)
        ended += ours.stopped == "end"
    assert SETTINGS / 10 < ended < SETTINGS, "both ways to stop must occur"


def random_sampling(rng: np.random.Generator, ends: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same random settings, in our names and in those of transformers."""
    pairs: list[tuple[str, str, Any]] = [
        ("temperature", "temperature", float(rng.uniform(0.3, 2))),
        ("top_k", "top_k", int(rng.integers(0, 30))),
        ("top_p", "top_p", float(rng.uniform(0.2, 1))),
        ("min_p", "min_p", float(rng.uniform(0, 0.3))),
        ("repetition_penalty", "repetition_penalty", float(rng.uniform(0.8, 2))),
        ("no_repeat_ngram", "no_repeat_ngram_size", int(rng.integers(1, 4))),
        ("bad_words", "bad_words_ids", [*rng.integers(0, VOCABULARY, size=(3, 1)).tolist(), [ends[0]]]),
        ("min_length", "min_length", int(rng.integers(1, 10))),
        ("min_new_tokens", "min_new_tokens", int(rng.integers(1, 5))),
    ]
    chosen = [pair for pair in pairs if rng.random() < 0.5]
    return {ours: value for ours, _, value in chosen}, {theirs: value for _, theirs, value in chosen}


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning")
def test_sampling_has_the_same_scores_and_draws_the_same_tokens() -> None:
    rng = np.random.default_rng(1)
    for seed in range(SETTINGS):
        model, prompt, ends, length = random_request(rng)
        ours, theirs = random_sampling(rng, ends)
        torch.manual_seed(seed)
        expected = their_generate(model, prompt, do_sample=True, max_new_tokens=length + 5, eos_token_id=ends, **theirs)
        sampler = dialect("hf", **ours, end_ids=ends)
        written = generate(
            next_logits(model), prompt, sampler, TorchStream(seed), max_new_tokens=length + 5, end_ids=ends
        )
        assert written.tokens == output_ids(expected.sequences[0], prompt, ends)
        for t, scores in enumerate(expected.scores):
            context = Context(tuple(prompt), written.tokens[:t])
            logits = sampler.logits(next_logits(model)(context.tokens), context)
            np.testing.assert_allclose(logits, scores[0].numpy(), rtol=1e-4, atol=1e-4)


def their_search(
    model: PreTrainedModel, prompt: list[int], ends: list[int], width: int, **settings: Any
) -> tuple[list[tuple[int, ...]], list[float]]:
    """The sequences and scores that generate returns; one beam is its greedy search, whose score is computed here."""
    penalty = settings["length_penalty"]
    if width > 1:
        settings |= {"num_beams": width, "num_return_sequences": width}
    else:  # the others mean nothing to it
        settings = {"max_new_tokens": settings["max_new_tokens"]}
    theirs = their_generate(model, prompt, do_sample=False, eos_token_id=ends, **settings)
    sequences = [output_ids(row, prompt, ends) for row in theirs.sequences]
    if width > 1:
        return sequences, theirs.sequences_scores.tolist()
    total = sequence_logprob(torch.cat(theirs.scores).numpy(), sequences[0])
    return sequences, [total / len(sequences[0]) ** penalty]


def test_beam_search_finds_the_same_sequences_and_scores() -> None:
    """Widths 1 to 8 and five length penalties, each under all three stopping rules."""
    rng = np.random.default_rng(2)
    reasons: set[str] = set()
    rule_matters = 0
    for number in range(SETTINGS):
        model, prompt, _, _ = random_request(rng)
        width, length = number % 8 + 1, int(rng.integers(1, 16))
        ends = rng.choice(VOCABULARY, size=rng.integers(1, 20), replace=False).tolist()
        found = []
        for rule in (True, False, "never") if width > 1 else (True, False):  # greedy never waits for a better one
            settings = {
                "max_new_tokens": length,
                "length_penalty": [-0.2, 0.0, 0.5, 1.0, 2.0][number % 5],
                "early_stopping": rule,
            }
            trace = beam_search(next_logprobs(model), prompt, width=width, end_ids=ends, **settings)
            sequences, scores = their_search(model, prompt, ends, width, **settings)
            assert [h.tokens for h in trace.hypotheses] == sequences
            np.testing.assert_allclose([h.score for h in trace.hypotheses], scores, rtol=1e-5, atol=1e-4)
            reasons.update(trace.stopped)
            found.append(sequences)
        rule_matters += any(sequences != found[0] for sequences in found)
    assert len(reasons) == 3, f"every reason to stop must occur, not only {reasons}"
    assert rule_matters > SETTINGS / 10, "the stopping rule hardly ever changed the result"


@pytest.mark.real_model
def test_the_real_model_writes_the_same() -> None:
    from labsupport.models import load

    model, tokenizer = load("smollm2-135m-instruct")
    prompt = tokenizer("The capital of France is").input_ids
    ends = [tokenizer.eos_token_id]
    greedy = generate(
        next_logits(model), prompt, dialect("hf", do_sample=False), Xorwow(), max_new_tokens=8, end_ids=ends
    )
    theirs = their_generate(model, prompt, do_sample=False, max_new_tokens=8, eos_token_id=ends)
    assert greedy.tokens == output_ids(theirs.sequences[0], prompt, ends)
    assert tokenizer.decode(greedy.tokens).startswith(" Paris")
    settings: dict[str, Any] = {"max_new_tokens": 8, "length_penalty": 1.0, "early_stopping": False}
    trace = beam_search(next_logprobs(model), prompt, width=4, end_ids=ends, **settings)
    sequences, scores = their_search(model, prompt, ends, 4, **settings)
    assert [h.tokens for h in trace.hypotheses] == sequences
    np.testing.assert_allclose([h.score for h in trace.hypotheses], scores, rtol=1e-4)
