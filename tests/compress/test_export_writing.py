"""The export stage on a model that writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.examples import random_rows, tiny_context, tiny_tokenizing
from support.networks import quantized_network, random_network
from support.writing_shapes import SHAPES

from compress.settings import ExportSettings
from compress.stages import EXPORT
from export.generator import Generator
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.generation_settings import Generation
from models.kinds import Int8Form
from models.network import Network

SHAPE = replace(SHAPES["gpt2"], family="gpt2")


@pytest.mark.parametrize("form", [None, Int8Form.DYNAMIC])
def test_what_writes_becomes_a_bundle(form: Int8Form | None, tmp_path: Path) -> None:
    network: Network = random_network(SHAPE)
    network = network if form is None else quantized_network(network, form)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), Generation(end=(2,), max_tokens=5)).of(network)
    context = tiny_context(tmp_path, checkpoint, validation=random_rows(6))
    made = EXPORT.run(checkpoint, ExportSettings(golden=2), context)
    assert made.details["parity"]["max_abs"] < (1e-4 if form is None else 0.5)
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").examples == 2
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert (config["model_type"], config["n_head"], config["eos_token_id"]) == ("gpt2", 4, 2)
    assert len(Generator.open(tmp_path / "bundle").write(["w3 w4"])) == 1
