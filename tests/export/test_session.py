from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.networks import random_network, tiny_shape

from export.lower import lower
from export.session import open_session, run
from export.target import CPU
from models.errors import BadFile, BadInput


@pytest.fixture(scope="module")
def model() -> bytes:
    return lower(random_network(tiny_shape()), CPU).SerializeToString()


def test_mask_and_token_types_may_be_left_out(model: bytes) -> None:
    session = open_session(model, threads=1)
    ids = np.arange(12).reshape(2, 6)
    whole = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.testing.assert_array_equal(run(session, {"input_ids": ids}), run(session, whole))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        open_session(tmp_path / "model.onnx", threads=1)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_truncated_model_is_said(tmp_path: Path, model: bytes, keep: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model[:keep])
    with pytest.raises(BadFile, match="does not read it"):
        open_session(path, threads=1)


def test_an_id_beyond_the_table_is_said(model: bytes) -> None:
    with pytest.raises(BadInput, match="refuses the input"):
        run(open_session(model, threads=1), {"input_ids": np.array([[1, 50]])})


def test_a_text_longer_than_the_positions_is_said(model: bytes) -> None:
    with pytest.raises(BadInput, match=r"\(1, 41\)"):
        run(open_session(model, threads=1), {"input_ids": np.zeros((1, 41), dtype=np.int64)})


def test_no_threads_are_refused(model: bytes) -> None:
    with pytest.raises(BadInput, match="threads is 0"):
        open_session(model, threads=0)
