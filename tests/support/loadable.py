"""Tiny bundles of the tasks that other libraries have classes for, and what we answer with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.networks import PRUNED, quantized_network, random_network, tiny_shape
from support.writers import writer
from support.writing_tokenizers import byte_level, byte_level_bare

from export.bundle import Bundle
from export.contents import Contents, write_bundle
from export.generator import Generator
from export.graph_file import graph_file
from export.target import CPU
from models.checkpoint import Checkpoint
from models.generation_settings import Generation
from models.kinds import Int8Form, Reads
from models.network import Network
from models.shape import HeadShape

TEXTS = ["the cat sat on the mat", "naïve café 🙂 über", "Ωμέγα"]
PAIRS = [["who sat on the mat?", "the cat sat on the mat and the dog beside it"]]
WORDS = 360
TOKENS = HeadShape(("O", "B-X", "I-X"), task="token-classification", reads=Reads.EACH)
SPANS = HeadShape(("start", "end"), task="question-answering", reads=Reads.EACH)
VECTOR = HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True)
PROJECTED = replace(VECTOR, width=12, projected=True)
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "classes": ("text-classification", {}),
    "classes-pruned": ("text-classification", {"layers": PRUNED, "type_vocab_size": 0}),
    "classes-int8": ("text-classification", {"type_vocab_size": 0}),
    "tokens": ("token-classification", {"head": TOKENS}),
    "spans": ("question-answering", {"head": SPANS}),
    "states": ("feature-extraction", {"head": None}),
    "vectors": ("feature-extraction", {"head": VECTOR}),
    "vectors-projected": ("feature-extraction", {"head": PROJECTED}),
}
WRITERS = {
    "bart": "text2text-generation",
    "pegasus": "text2text-generation",
    "t5": "text2text-generation",
    "gpt2": "text-generation",
    "llama": "text-generation",
}
BY_TASK = {**{name: task for name, (task, _) in HEADS.items()}, **WRITERS}


def write_loadable(name: str, directory: Path) -> Bundle:
    """Write the bundle of this name into a new directory and return it."""
    directory.mkdir()
    checkpoint = _writing(name, directory.with_name(f"{name}-teacher")) if name in WRITERS else _answering(name)
    graph = graph_file(checkpoint.network(), CPU)
    examples = [one.inputs for one in checkpoint.tokenizing.encode(TEXTS[:2], max_length=24)]
    return write_bundle(directory, Contents.of(checkpoint, graph, examples))


def _answering(name: str) -> Checkpoint:
    _, changes = HEADS[name]
    network: Network = random_network(tiny_shape(vocab_size=WORDS, **changes), seed=5)
    if name.endswith("int8"):
        network = quantized_network(network, Int8Form.DYNAMIC)
    return Checkpoint(network.shape, {}, byte_level()).of(network)


def _writing(name: str, teacher: Path) -> Checkpoint:
    # Optimum takes the caches of both stacks for as many heads, of the width divided by them.
    changes = {"bart": {"encoder_attention_heads": 2}, "pegasus": {"encoder_attention_heads": 2}, "t5": {"d_kv": 8}}
    model = writer(name, vocab_size=WORDS, seed=5, **changes.get(name, {}))
    model.save_pretrained(teacher)
    (byte_level if WRITERS[name] == "text2text-generation" else byte_level_bare)().save(teacher)
    checkpoint = Checkpoint.load(teacher)
    how = checkpoint.generation or Generation()
    return replace(checkpoint, generation=replace(how, beams=1, max_tokens=8))


def asked_of(bundle: Bundle, task: str) -> dict[str, Any]:
    """Return what another library is asked."""
    return {"bundle": str(bundle.directory), "task": task, "texts": PAIRS if task == "question-answering" else TEXTS}


def our_answers(bundle: Bundle, task: str) -> list[Any]:
    """Return what `compress predict` says, or the numbers that it is made of."""
    if "generation" in task:
        return Generator.open(bundle.directory).write(TEXTS)
    if task == "text-classification":
        return [dict(answer.values["probabilities"]) for answer in bundle.predict(TEXTS)]
    texts, pairs = (PAIRS[0][:1], PAIRS[0][1:]) if task == "question-answering" else (TEXTS, None)
    found = []
    for one in bundle.tokenizing.encode(texts, pairs, max_length=bundle.shape.usable_positions):
        given = {"attention_mask": np.ones((1, len(one.ids)), dtype=np.int64), **one.inputs}
        names = [port.name for port in bundle.manifest.outputs]
        wanted = "last_hidden_state" if "last_hidden_state" in names else "logits"
        arrays = {port.name: given[port.name] for port in bundle.manifest.inputs}
        values = bundle.session.run(None, arrays)[names.index(wanted)]  # of the runtime
        found.append(values[0].tolist())
    return found
