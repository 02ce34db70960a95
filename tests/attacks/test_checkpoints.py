"""A checkpoint is somebody else's file: nothing is unpickled, sizes are bounded, and paths stay inside."""

from __future__ import annotations

import json
import pickle  # noqa: TID251
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.examples import tiny_checkpoint
from support.hugging_face import edit_config, oracle, saved

from models.checkpoint import Checkpoint
from models.errors import BadFile, CompressError, Unsupported


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(oracle("bert"), tmp_path / "checkpoint")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "tokenizer.json", "config.json"])
def test_nothing_is_unpickled(name: str, checkpoint: Path) -> None:
    mark = checkpoint.parent / "mark"
    if name == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Touch(mark)))
    with pytest.raises((Unsupported, BadFile)):
        Checkpoint.load(checkpoint)
    assert not mark.exists()


def test_remote_code_is_not_run(checkpoint: Path) -> None:
    mark = checkpoint.parent / "mark"
    (checkpoint / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')")
    edit_config(checkpoint, auto_map={"AutoModel": "modeling_evil.Evil"}, trust_remote_code=True)
    Checkpoint.load(checkpoint)
    assert not mark.exists()


def header(value: Any, *, length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "data",
    [
        header({}, length=2**63),
        header({}, length=2**40),
        header([]),
        header({"bert.w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, data=b"\0" * 8),
        header({"bert.w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, data=b"\0" * 8),
        header({"bert.w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**50]}}, data=b"\0" * 8),
        header({"bert.w": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, data=b"\0" * 8),
        header({"bert.w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, data=b"\0" * 8),
        b"\0" * 64,
        b"PK\x03\x04" + b"\0" * 64,
    ],
)
def test_headers_that_lie(data: bytes, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(data)
    with pytest.raises(BadFile):
        Checkpoint.load(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"hidden_size": 3 * 10**9},
        {"max_position_embeddings": 10**12},
        {"intermediate_size": 10**15},
        {"num_hidden_layers": -1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_sizes_that_no_model_has(change: dict[str, Any], checkpoint: Path) -> None:
    edit_config(checkpoint, **change)
    with pytest.raises(CompressError):
        Checkpoint.load(checkpoint)


def test_a_scale_that_is_not_a_number(tmp_path: Path) -> None:
    from support.networks import quantized_network

    from models.kinds import Int8Form

    plain = tiny_checkpoint()
    plain.of(quantized_network(plain.network(), Int8Form.DYNAMIC)).save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["layers.0.ffn.up.weight_scale"][0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BadFile, match=r"layers\.0\.ffn\.up\.weight_scale.*not finite"):
        Checkpoint.load(tmp_path)


def test_a_shard_that_is_a_link_out_of_an_index_stays_named_inside(tmp_path: Path) -> None:
    directory = saved(oracle("bert"), tmp_path / "shards", max_shard_size="8KB")
    index = directory / "model.safetensors.index.json"
    value = json.loads(index.read_text())
    first = next(iter(value["weight_map"]))
    value["weight_map"][first] = "../" * 8 + "etc/passwd"
    index.write_text(json.dumps(value))
    with pytest.raises(BadFile, match="unsafe path"):
        Checkpoint.load(directory)
