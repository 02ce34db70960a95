"""What heads and neurons of models that write cost in the time of a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.examples import random_written, tiny_context, writing_checkpoint

from compress.pruning import latency_table, writing_table
from compress.pruning.latency_table import Clock
from compress.pruning.plan import Plan
from compress.pruning.surgery import prune as cut
from compress.pruning.writing_table import Text, TextClock, texts_of
from compress.settings import PruneSettings, RecoverySettings
from compress.stages.prune import PRUNE
from export.runtime_steps import WriterSessions
from models.checkpoint import Checkpoint
from models.errors import BadInput
from models.generation_settings import Generation
from models.sublayers import Part, layers_by_path, sublayers_of
from models.tasks import task_named

MS = 1_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(latency_table, "ROUNDS", 3)
    monkeypatch.setattr(latency_table, "SAMPLED", 3)
    monkeypatch.setattr(writing_table, "CONFIRM_TEXTS", 2)
    monkeypatch.setattr(writing_table, "CONFIRM_ROUNDS", 1)


def clock_of(model: Checkpoint, folder: Path, *, int8: bool = True) -> TextClock:
    data = random_written(24, behind=model.shape.decoder is not None)
    return TextClock.of(model, Clock(data, 1, folder, int8=int8))


@pytest.mark.parametrize(("name", "int8"), [("bart", True), ("t5", False), ("llama", True)])
def test_every_sublayer_is_timed_where_it_runs(name: str, int8: bool, tmp_path: Path) -> None:
    model = writing_checkpoint(name)
    model = replace(model, generation=Generation(start=1, end=(2,), max_tokens=8, beams=2))
    clock = clock_of(model, tmp_path, int8=int8)
    costs = clock.costs(model.shape, ffn_multiple=8)
    assert costs.fixed > 0
    for sublayer in sublayers_of(model.shape):
        table = costs.units[sublayer.path]
        multiple = 8 if sublayer.part is Part.FFN else 1
        assert list(table) == sorted({*range(0, sublayer.units, multiple), sublayer.units})
        assert table[0] == 0 and list(table.values()) == sorted(table.values())


def test_what_writes_costs_as_often_as_there_are_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def units(loaded: WriterSessions, stack: str, part: Part) -> int:
        every = sublayers_of(loaded.shape)
        return sum(one.units for one in every if (one.stack, one.part) == (stack, part))

    def begin(loaded: WriterSessions, text: Text) -> int:
        asked.append(text.written)
        return (9 + 3 * units(loaded, "layers", Part.ATTENTION)) * MS

    def word(loaded: WriterSessions, text: Text, beams: int) -> int:
        assert beams == 3
        own, crossing = (units(loaded, "decoder.layers", part) for part in (Part.ATTENTION, Part.CROSS))
        return (5 + own + 2 * crossing) * MS

    monkeypatch.setattr(writing_table, "_begin_ns", begin)
    monkeypatch.setattr(writing_table, "_word_ns", word)
    model = writing_checkpoint("bart")
    model = replace(model, generation=Generation(start=1, end=(2,), max_tokens=8, beams=3))
    clock = clock_of(model, tmp_path)
    costs = clock.costs(model.shape, ffn_multiple=8)
    steps = np.mean([text.written - 1 for text in texts_of(clock.clock.data)])
    assert steps > 1
    assert costs.fixed == pytest.approx(9 + 5 * steps)
    each = {"layers.0.attention": 3, "decoder.layers.1.attention": steps, "decoder.layers.0.cross": 2 * steps}
    for path, ms in each.items():
        assert costs.units[path][2] == pytest.approx(2 * ms), path
    assert costs.units["decoder.layers.0.ffn"][24] == 0
    before = len(asked)
    assert clock.costs(model.shape, ffn_multiple=8) == costs and len(asked) == before  # remembered


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_a_speed_up_is_that_of_whole_texts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = writing_checkpoint(name)
    clock = clock_of(model, tmp_path)
    few = {one.path: (0,) if one.units else () for one in sublayers_of(model.shape)}
    smaller = cut(model, Plan(few))
    found = clock.speedup(model, smaller)
    assert found > 0
    monkeypatch.setattr(writing_table, "compare", lambda *arguments, **options: pytest.fail("measured again"))
    assert clock.speedup(model, smaller) == found


def test_texts_are_as_long_as_those_of_the_data() -> None:
    behind, alone = (random_written(200, behind=one) for one in (True, False))
    middle = int(np.quantile(behind.lengths, 0.5))
    assert texts_of(behind)[1] == Text(int(np.quantile(behind.written.read_lengths, 0.5)), 1, middle)
    assert texts_of(alone)[1] == Text(0, (middle + 1) // 2, middle - (middle + 1) // 2)


def test_the_stage_meets_a_speed_up_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements are replaced by weights: the real ones differ from call to call."""

    def size(shape: object) -> float:
        layers = layers_by_path(shape).values()  # type: ignore[arg-type]
        return sum(layer.heads + (layer.cross_heads or 0) + layer.ffn / 4 for layer in layers)

    def times(shapes, texts, beams, threads, progress):  # type: ignore[no-untyped-def]
        assert any(shape.int8 for shape in shapes.values())
        return {name: 1.0 + size(shape) for name, shape in shapes.items()}

    monkeypatch.setattr(writing_table, "_times", times)
    monkeypatch.setattr(TextClock, "speedup", lambda self, *pair: (2 + size(pair[0].shape)) / (2 + size(pair[1].shape)))
    model = writing_checkpoint("bart")
    context = replace(
        tiny_context(tmp_path, model, train=random_written(16, behind=True)), task=task_named("translation")
    )
    settings = PruneSettings(speedup=1.6, rounds=2, examples=8, ffn_multiple=4, recovery=RecoverySettings(epochs=0))
    output = PRUNE.run(model, settings.model_copy(update={"round_epochs": 0}), context)
    assert output.details["measured_speedup"] >= 1.6 * 0.99
    assert len(output.details["decoder_heads"]) == len(output.details["cross_heads"]) == 2
    with pytest.raises(BadInput, match="how the model writes"):
        PRUNE.run(replace(model, generation=None), settings, context)
