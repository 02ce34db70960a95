from __future__ import annotations

import numpy as np
import pytest
import torch

import teacher_student.teacher_cache as module
from models.evaluation import evaluate_logits, unpadded_batches
from teacher_student.compute import Compute
from teacher_student.teacher_cache import teacher_outputs


@pytest.fixture
def counted(monkeypatch):
    calls = []
    original = module._compute
    monkeypatch.setattr(module, "_compute", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    return calls


def test_outputs_are_the_teachers(make_model, make_data, tmp_path):
    teacher, data = make_model(layers=2), make_data()
    outputs = teacher_outputs(teacher, data, hidden=(0, 2), cache=tmp_path, compute=Compute())
    assert isinstance(outputs.logits, np.memmap) and outputs.logits.dtype == np.float32
    tables = {layer: np.load(path, mmap_mode="r", allow_pickle=False) for layer, path in outputs.hidden.items()}
    assert {layer: (table.dtype, table.shape) for layer, table in tables.items()} == {
        layer: (np.float16, (int(data.offsets[-1]), teacher.shape.hidden_size)) for layer in (0, 2)
    }
    rows = torch.tensor([7, 3, 30])
    batch = data.batch(rows.numpy())
    with torch.no_grad():
        features = teacher.network().features(**batch.inputs)
    torch.testing.assert_close(outputs.logits_of(rows), features.logits, rtol=1e-5, atol=1e-5)
    for layer in (0, 2):
        expected = features.hidden[layer][batch.mask]
        torch.testing.assert_close(outputs.hidden_of(layer, rows), expected, rtol=2e-3, atol=1e-4)


def test_outputs_are_kept_and_keyed(make_model, make_data, tmp_path, counted):
    teacher, data = make_model(layers=2), make_data()
    first = teacher_outputs(teacher, data, hidden=(1,), cache=tmp_path, compute=Compute())
    again = teacher_outputs(make_model(layers=2), data, hidden=(1, 1), cache=tmp_path, compute=Compute())
    assert len(counted) == 1 and np.array_equal(first.logits, again.logits)
    teacher_outputs(make_model(layers=2, seed=1), data, hidden=(1,), cache=tmp_path, compute=Compute())
    teacher_outputs(teacher, make_data(seed=5), hidden=(1,), cache=tmp_path, compute=Compute())
    teacher_outputs(teacher, data, cache=tmp_path, compute=Compute())
    teacher_outputs(teacher, data, hidden=(1,), cache=tmp_path, compute=Compute(bf16=True))
    assert len(counted) == 5


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "record"])
def test_a_harmed_cache_is_made_again(make_model, make_data, tmp_path, counted, harm):
    teacher, data = make_model(layers=2), make_data()
    rows = torch.arange(len(data))
    expected = teacher_outputs(teacher, data, hidden=(1,), cache=tmp_path, compute=Compute()).hidden_of(1, rows)
    (place,) = tmp_path.iterdir()
    file = place / ("record.json" if harm == "record" else "hidden-1.npy")
    content = bytearray(file.read_bytes())
    file.unlink()
    if harm == "flip":
        content[-1] ^= 0x40
        file.write_bytes(content)
    elif harm in ("cut", "record"):
        file.write_bytes(content[: len(content) // 2])
    outputs = teacher_outputs(teacher, data, hidden=(1,), cache=tmp_path, compute=Compute())
    assert len(counted) == 2 and torch.equal(outputs.hidden_of(1, rows), expected)


def test_a_kill_leaves_nothing_half_done(make_model, make_data, tmp_path):
    def dying(label):
        def tick(done, total):
            raise KeyboardInterrupt

        return tick

    with pytest.raises(KeyboardInterrupt):
        teacher_outputs(make_model(), make_data(), cache=tmp_path, compute=Compute(), progress=dying)
    assert not list(tmp_path.iterdir())


def test_unpadded_batches_hold_every_row_once_and_keep_the_limit(make_data):
    lengths = make_data(rows=200).lengths
    batches = unpadded_batches(lengths, batch_tokens=20)
    assert sorted(np.concatenate(batches)) == list(range(200))
    for rows in batches:
        assert len(set(lengths[rows])) == 1 and lengths[rows].sum() <= 20
    assert [len(rows) for rows in unpadded_batches(lengths, batch_tokens=1)] == [1] * 200


def test_evaluation_is_in_row_order_and_restores_the_mode(make_model, make_data):
    network, data = make_model(layers=2).network().train(), make_data()
    ticks = []
    logits = evaluate_logits(
        network, data, batch_tokens=16, progress=lambda label: lambda done, total: ticks.append((done, total))
    )
    assert network.training and ticks[-1] == (48, 48) and logits.dtype == np.float32
    network.eval()
    for row in range(0, 48, 7):
        batch = data.batch(np.array([row]))
        expected = network(**batch.inputs).detach().numpy()[0]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-5, atol=1e-6)
