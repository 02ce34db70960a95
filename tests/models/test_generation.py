"""Writing against `generate` of `transformers`: the same tokens, greedily and by beams, for texts of any length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.hugging_face import saved
from support.writers import LONGEST, SIZES, writer
from transformers import GenerationConfig

from models.beams import Hypothesis
from models.checkpoint import Checkpoint
from models.errors import BadFile, BadInput, Unsupported
from models.generation import Prompts, generate, starts, stream
from models.generation_settings import Ending, Generation, Sampling, read_generation, written_generation
from models.native_steps import NativeSteps
from models.network import Network
from models.token_scores import allowed, drawn, largest, log_shares

BEHIND = ("t5", "bart", "marian")
ALONE = ("gpt2", "llama")
SOURCES = [[5, 9, 14, 3, 22, 41, 8], [30], [7, 7, 12, 45]]
# What a search is asked for, and how transformers is asked for it.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({}, {}),
    "greedy, no pair twice": ({"no_repeat": 2}, {"no_repeat_ngram_size": 2}),
    "greedy, repeats dearer": ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    "greedy, long and banned": (
        {"min_tokens": 6, "banned": (11, 12, 13)},
        {"min_new_tokens": 6, "bad_words_ids": [[11], [12], [13]]},
    ),
    "beams": ({"beams": 4}, {"num_beams": 4}),
    "beams, short": ({"beams": 3, "length_penalty": -1.5}, {"num_beams": 3, "length_penalty": -1.5}),
    "beams, full": (
        {"beams": 4, "ending": Ending.FULL, "length_penalty": 0.6},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 0.6},
    ),
    "beams, to the end": (
        {"beams": 2, "ending": Ending.NEVER, "length_penalty": 2.0},
        {"num_beams": 2, "early_stopping": "never", "length_penalty": 2.0},
    ),
    "beams, long, no three twice": (
        {"beams": 4, "min_tokens": 5, "no_repeat": 3, "renormalize": True, "banned": (1, 17)},
        {
            "num_beams": 4,
            "min_new_tokens": 5,
            "no_repeat_ngram_size": 3,
            "renormalize_logits": True,
            "bad_words_ids": [[1], [17]],
        },
    ),
    "beams, two ends": ({"beams": 3, "end": (2, 6)}, {"num_beams": 3, "eos_token_id": [2, 6]}),
}
FORCED: tuple[dict[str, Any], dict[str, Any]] = (
    {"beams": 3, "forced_first": 19, "forced_last": 2},
    {"num_beams": 3, "forced_bos_token_id": 19, "forced_eos_token_id": 2},
)
ways = pytest.mark.parametrize("way", WAYS)


# The caches of transformers have as many layers as the encoder.
CHANGES: dict[str, dict[str, Any]] = {
    "t5": {"num_layers": 3},
    "bart": {"encoder_layers": 3},
    "marian": {"encoder_layers": 3},
    "gpt2": {"eos_token_id": 2},
}


@cache
def pair(family: str, *, seed: int = 0) -> tuple[Any, Network]:
    """Return a model whose likeliest word is not always the same, and the network that was read of it."""
    model = writer(family, seed=seed, deviation=0.5, **CHANGES.get(family, {}))
    with TemporaryDirectory() as directory:
        network = Checkpoint.load(saved(model, Path(directory))).network()
    model.generation_config = GenerationConfig()  # what its config says of writing is not asked for
    return model, network


def ours(network: Network, sources: Prompts, settings: Generation, **options: Any) -> list[list[Hypothesis]]:
    if network.decoder is None:
        return generate(NativeSteps(network), sources, settings, **options)
    return generate(NativeSteps(network, sources), starts(settings, len(sources)), settings, **options)


def theirs(
    model: Any, sources: Prompts, asked: dict[str, Any], *, pad: int, ends: Sequence[int]
) -> list[list[list[int]]]:
    """Return the best texts of `generate` for every source, as we say them: what was written, without its end."""
    longest, behind = max(map(len, sources)), model.config.is_encoder_decoder
    filled = [
        [*source, *[pad] * (longest - len(source))] if behind else [*[pad] * (longest - len(source)), *source]
        for source in sources
    ]
    ids = torch.tensor(filled)
    lengths = torch.tensor([len(source) for source in sources])[:, None]
    places = torch.arange(longest)[None]
    mask = (places < lengths if behind else places >= longest - lengths).long()
    beams = asked.get("num_beams", 1)
    config = GenerationConfig(
        **{
            "max_new_tokens": 12,
            "eos_token_id": 2,
            "pad_token_id": pad,
            "decoder_start_token_id": 0,
            "num_return_sequences": beams,
            "do_sample": False,
            **asked,
        }
    )
    with torch.no_grad():
        said = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    texts = []
    for row in said[:, 1 if behind else longest :].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        texts.append(row[:end])
    return [texts[place : place + beams] for place in range(0, len(texts), beams)]


@ways
@pytest.mark.parametrize("family", [*BEHIND, *ALONE])
def test_the_words_are_those_of_transformers(family: str, way: str) -> None:
    model, network = pair(family)
    changes, asked = WAYS[way]
    settings = replace(Generation(start=0, end=(2,), max_tokens=12), **changes)
    expected = theirs(model, SOURCES, asked, pad=network.shape.pad_token_id, ends=settings.end)
    found = ours(network, SOURCES, settings)
    assert [[list(text.tokens) for text in texts] for texts in found] == expected
    lengths = {len(text) for texts in expected for text in texts}
    assert max(lengths) > 1


@pytest.mark.parametrize("family", BEHIND)
def test_first_and_last_words_are_forced(family: str) -> None:
    model, network = pair(family)
    changes, asked = FORCED
    settings = replace(Generation(start=0, end=(2,), max_tokens=7), **changes)
    expected = theirs(model, SOURCES, {**asked, "max_new_tokens": 7}, pad=network.shape.pad_token_id, ends=(2,))
    found = ours(network, SOURCES, settings)
    assert [[list(text.tokens) for text in texts] for texts in found] == expected
    assert all(text.ended and text.tokens[0] == 19 for texts in found for text in texts)


@pytest.mark.parametrize("family", [*BEHIND, *ALONE])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_does_not_depend_on_the_batch(family: str, beams: int) -> None:
    _, network = pair(family, seed=1)
    settings = Generation(start=0, end=(2,), max_tokens=10, beams=beams)
    together = ours(network, SOURCES, settings)
    for source, texts in zip(SOURCES, together, strict=True):
        (alone,) = ours(network, [source], settings)
        assert [text.tokens for text in alone] == [text.tokens for text in texts]
        for one, other in zip(alone, texts, strict=True):
            assert (one.score or 0.0) == pytest.approx(other.score or 0.0, rel=1e-4)


def test_beams_score_what_the_network_says() -> None:
    _, network = pair("bart")
    settings = Generation(start=0, end=(2,), max_tokens=9, beams=4, length_penalty=0.8)
    for text in ours(network, SOURCES[:1], settings)[0]:
        ids = [0, *text.tokens, *([2] if text.ended else [])]
        with torch.no_grad():
            logits = network(torch.tensor(SOURCES[:1]), decoder_input_ids=torch.tensor([ids[:-1]]))[0]
        total = float(logits.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]].sum())
        assert text.score == pytest.approx(total / (len(ids) - 1) ** 0.8, rel=1e-4)


def test_a_stream_gives_words_as_they_come_and_may_be_left() -> None:
    _, network = pair("llama")
    settings = Generation(end=(2,), max_tokens=8)
    whole = generate(NativeSteps(network), SOURCES, settings)
    rows = list(stream(NativeSteps(network), SOURCES, settings))
    for place, (text,) in enumerate(whole):
        said = [row[place] for row in rows]
        assert said[: len(text.tokens)] == list(text.tokens)
        assert set(said[len(text.tokens) + text.ended :]) <= {None}
    left = stream(NativeSteps(network), SOURCES, settings)
    first = next(left)
    left.close()
    assert first == rows[0]


def test_drawn_words_follow_the_seed_and_no_other_text() -> None:
    _, network = pair("gpt2")
    settings = Generation(end=(2,), max_tokens=8, sampling=Sampling(temperature=1.5))
    one, again, other = (ours(network, SOURCES, settings, seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert one != other
    assert ours(network, SOURCES[:2], settings, seed=3) == one[:2]


def test_the_likeliest_alone_is_greedy() -> None:
    _, network = pair("gpt2")
    settings = Generation(end=(2,), max_tokens=8)
    for sampling in (Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)):
        found = ours(network, SOURCES, replace(settings, sampling=sampling))
        assert found == ours(network, SOURCES, settings)


def test_drawn_words_have_their_shares() -> None:
    scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], dtype=np.float32)).repeat(20_000, axis=0)
    generators = [np.random.default_rng([0, row]) for row in range(len(scores))]
    for sampling, expected in (
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.75), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.9), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (Sampling(temperature=0.5), list(np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365)),
    ):
        shares = np.bincount(drawn(scores, sampling, generators), minlength=4) / len(scores)
        assert shares == pytest.approx(expected, abs=0.015)
        assert all(share == 0 for share, wanted in zip(shares, expected, strict=True) if wanted == 0)


def test_log_shares_are_those_of_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32) * 30
    expected = torch.from_numpy(logits).log_softmax(-1).numpy()
    np.testing.assert_allclose(log_shares(logits), expected, rtol=1e-5, atol=1e-6)


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 99), st.sampled_from([2, 50, 100_000]))
def test_the_largest_are_those_of_a_sort_with_ties_and_without(size: int, count: int, seed: int, kinds: int) -> None:
    values = np.random.default_rng(seed).integers(0, kinds, size).astype(np.float32)
    values[values == 0] = -np.inf
    assert largest(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


def test_no_pair_stands_twice() -> None:
    settings = Generation(end=(0,), no_repeat=2)
    scores = allowed(
        np.zeros((1, 6), dtype=np.float32), settings, written=[[1, 2, 3, 1, 4, 1]], step=3, last=np.array([False])
    )
    assert np.flatnonzero(np.isneginf(scores[0])).tolist() == [2, 4]


def test_the_last_word_is_where_the_room_ends() -> None:
    _, network = pair("llama")
    settings = Generation(end=(2,), max_tokens=99, banned=(2,))
    assert settings.end == (2,)
    prompt = [3] * (LONGEST - 4)
    for beams in (1, 2):
        (texts,) = generate(NativeSteps(network), [prompt], replace(settings, beams=beams))
        assert [len(text.tokens) for text in texts] == [4] * beams
        assert not any(text.ended for text in texts)


@pytest.mark.parametrize(
    ("family", "sources", "changes", "says"),
    [
        ("bart", [[5], []], {}, "text 2 is empty"),
        ("bart", [[5] * 31], {}, "text 1 has 31 tokens, and the model reads 30"),
        ("bart", [[5, 50]], {}, "text 1 has the token 50, and the model has 50"),
        ("bart", [[5]], {"beams": 51}, "51 beams are more than the 50 words"),
        ("bart", [[5]], {"end": ()}, "no token ends a text"),
        ("bart", [[5]], {"end": (77,)}, r"not the tokens \[77\]"),
        ("bart", [[5]], {"start": None}, "which token a text starts with"),
        ("gpt2", [[]], {}, "text 1 is empty"),
        ("gpt2", [[5] * 30], {}, "text 1 has 30 tokens, and the model has room for 30"),
        ("gpt2", [[-1]], {}, "the token -1"),
        ("gpt2", [[5]], {"banned": (50,)}, r"not the tokens \[50\]"),
    ],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_what_cannot_be_written(family: str, sources: Prompts, changes: dict[str, Any], says: str, beams: int) -> None:
    _, network = pair(family)
    settings = replace(Generation(start=0, end=(2,), beams=beams), **changes)
    with pytest.raises(BadInput, match=says):
        ours(network, sources, settings)


def test_as_few_as_many_need_no_end() -> None:
    _, network = pair("gpt2")
    for beams in (1, 2):
        (texts,) = ours(network, [[5]], Generation(min_tokens=6, max_tokens=6, beams=beams))
        assert [len(text.tokens) for text in texts] == [6] * beams


def test_sources_are_for_encoders() -> None:
    _, bart = pair("bart")
    _, gpt2 = pair("gpt2")
    with pytest.raises(BadInput, match="needs a source to read"):
        NativeSteps(bart)
    with pytest.raises(BadInput, match="goes on from a prompt"):
        NativeSteps(gpt2, [[3]])
    with pytest.raises(BadInput, match="1 starts for 2 sources"):
        generate(NativeSteps(bart, [[3], [4]]), [[0]], Generation(end=(2,)))
    with pytest.raises(BadInput, match="at the end alone"):
        next(stream(NativeSteps(gpt2), [[3]], Generation(end=(2,), beams=2)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens 9 is more than max_tokens 3"),
        ({"end": (-1,)}, "token -1"),
        ({"length_penalty": "long"}, "length_penalty is 'long'"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"sampling": Sampling(temperature=0)}, "temperature is 0"),
        ({"sampling": Sampling(top_k=-1)}, "top_k is -1"),
        ({"sampling": Sampling(top_p=1.5)}, r"top_p is 1\.5"),
        ({"sampling": Sampling(), "beams": 2}, "a beam search draws none"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Generation(**changes)


SETTINGS = Generation(
    start=3,
    end=(2, 7),
    bos=1,
    max_tokens=33,
    min_tokens=4,
    beams=5,
    length_penalty=0.7,
    ending=Ending.NEVER,
    no_repeat=3,
    repetition_penalty=1.25,
    forced_first=8,
    forced_last=2,
    banned=(1, 4),
    renormalize=True,
)


@pytest.mark.parametrize(
    "settings", [Generation(), SETTINGS, Generation(end=(2,), sampling=Sampling(0.5, 7, 0.9)), Generation(end=(0,))]
)
def test_settings_go_both_ways(settings: Generation, tmp_path: Path) -> None:
    assert Generation.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    written = json.loads(json.dumps(written_generation(settings, pad=1)))
    behind = settings.start is not None
    assert read_generation(written, behind_encoder=behind) == settings
    GenerationConfig(**written).save_pretrained(tmp_path)
    theirs = json.loads((tmp_path / "generation_config.json").read_text())
    assert read_generation(theirs, behind_encoder=behind) == settings


def test_lengths_of_old_configs_count_the_start() -> None:
    config = {"decoder_start_token_id": 2, "eos_token_id": 2, "max_length": 142, "min_length": 56, "num_beams": 4}
    settings = read_generation(config, behind_encoder=True)
    assert (settings.start, settings.max_tokens, settings.min_tokens, settings.beams) == (2, 141, 55, 4)
    alone = read_generation(config, behind_encoder=False)
    assert (alone.start, alone.max_tokens, alone.min_tokens) == (None, 128, 0)


@pytest.mark.parametrize(
    "config", [{"num_beam_groups": 3}, {"bad_words_ids": [[3, 4]]}, {"typical_p": 0.5}, {"guidance_scale": 2.0}]
)
def test_settings_that_are_not_ours(config: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=next(iter(config))):
        read_generation(config, behind_encoder=True)


@pytest.mark.parametrize("value", [{"speed": 3}, {"beams": 0}, {"end": 3}, {"ending": "soon"}, {"sampling": {"k": 3}}])
def test_broken_settings_are_said(value: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match="generation"):
        Generation.from_json(value)


def test_every_family_here_is_one_that_writes() -> None:
    assert {*BEHIND, *ALONE} <= set(SIZES)
