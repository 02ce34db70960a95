"""The export stage on a model that writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.examples import (
    random_rows,
    random_written,
    tiny_checkpoint,
    tiny_context,
    tiny_tokenizing,
    writing_checkpoint,
)
from support.networks import quantized_network, random_network
from support.writing_shapes import SHAPES

from compress.cli import main
from compress.settings import ExportSettings, ShortlistSettings
from compress.sources import Inputs
from compress.stage import Output
from compress.stages import EXPORT
from compress.stages.export import NewBundle
from export.generator import Generator
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.data import Table
from models.encoded import Encoded
from models.errors import BadInput, Unsupported
from models.generation_settings import Generation, Sampling
from models.kinds import Int8Form
from models.network import Network
from models.task import Task
from models.tasks import task_named
from models.tasks.text_classification import TextClassification

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


def test_the_command_writes_as_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network: Network = random_network(SHAPE)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), Generation(end=(2,), max_tokens=5, beams=3)).of(
        network
    )
    context = tiny_context(tmp_path, checkpoint, validation=random_rows(6))
    made = EXPORT.run(checkpoint, ExportSettings(golden=2), context)
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    generator = Generator.open(tmp_path / "bundle")
    drawn = replace(generator.settings, beams=1, sampling=Sampling(temperature=2.0, top_k=9, top_p=0.9))

    def told(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(tmp_path / "bundle"), "w3 w4", *words])
        assert stop.value.code == code
        said = capsys.readouterr()
        return said.out or said.err

    for words, settings, seed in (
        ([], generator.settings, 0),
        (["--beams", "1", "--max-tokens", "3"], replace(generator.settings, beams=1, max_tokens=3), 0),
        (["--stream"], replace(generator.settings, beams=1), 0),
        (["--temperature", "2", "--top-k", "9", "--top-p", "0.9", "--seed", "4"], drawn, 4),
    ):
        (expected,) = generator.write(["w3 w4"], settings, seed=seed)
        assert told(*words) == f"{expected}\n"
        assert json.loads(told(*words, "--json")) == [{"text": expected}]
    for words, message in ((["--beams", "0"], "beams"), (["--stream", "--beams", "2"], "one beam")):
        assert message in told(*words, code=2)


def test_a_bundle_that_answers_is_not_told_how_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint()
    made = EXPORT.run(
        checkpoint, ExportSettings(golden=2), tiny_context(tmp_path, checkpoint, validation=random_rows(6))
    )
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "bundle"), "w3 w4", "--top-k", "3"])
    assert stop.value.code == 2
    assert "writes nothing" in (message := capsys.readouterr().err) and "--top-k" in message


def test_a_search_in_the_graph_is_one_file(tmp_path: Path) -> None:
    network: Network = random_network(replace(SHAPES["bart"], family="bart"), seed=3)
    how = Generation(start=1, end=(12, 2), max_tokens=5, beams=2)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), how).of(network)
    context = tiny_context(tmp_path, checkpoint, validation=random_written(6, behind=True))
    made = EXPORT.run(checkpoint, ExportSettings(golden=2, search="graph"), context)
    assert made.details["same_texts"] == 1.0
    assert made.details["parity"]["max_abs"] < 1e-4
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").examples == 2


def listing(folder: Path, rows: Encoded, *, sequence: bool = False, words: int = 2) -> Output[NewBundle]:
    """Return a bundle with a shortlist made of rows, on which it is tried too."""
    network: Network = random_network(replace(SHAPES["bart"], family="bart"), seed=3)
    how = Generation(start=1, end=(12, 2), max_tokens=5, beams=2)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), how).of(network)
    context = replace(tiny_context(folder, checkpoint, train=rows, validation=rows), sequence=sequence)
    asked = ExportSettings(golden=2, search="graph", shortlist=ShortlistSettings(words=words, first=6))
    return EXPORT.run(checkpoint, asked, context)


def test_a_shortlist_is_made_of_the_training_texts(tmp_path: Path) -> None:
    made = listing(tmp_path, random_written(20, behind=True))
    assert made.details["same_texts"] == 1.0
    told = made.details["shortlist"]
    assert (told["words"], told["texts"]) == (50, 20)
    assert 6 < told["listed"] < 40 and 0 < told["covered"] < 1 and told["unchanged"] < 1
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle").examples == 2
    assert len(Generator.open(tmp_path / "bundle").write(["w3 w4", "w49"])) == 2


def test_a_shortlist_is_made_of_what_the_teacher_wrote_where_it_was_learnt(tmp_path: Path) -> None:
    told = listing(tmp_path, random_written(20, behind=True), sequence=True, words=30).details["shortlist"]
    assert told["covered"] == 1.0 and told["listed"] < 40
    assert told["unchanged"] >= 0.9  # shares are of fewer words, so another text may have become the best


def test_an_export_depends_on_training_texts_for_a_shortlist_alone(tmp_path: Path) -> None:
    tables = {role: Table(["w3"], None, [("w4",)], role, role) for role in ("train", "validation")}
    inputs = Inputs(task_named("translation"), writing_checkpoint("bart"), "", tables, None, tmp_path, 0)
    assert set(inputs.keys("export")) == {"teacher", "validation"}
    assert set(replace(inputs, listing=True).keys("export")) == {"teacher", "train", "validation"}


def test_a_milder_shortlist_is_longer_until_there_is_none() -> None:
    asked = ExportSettings(search="graph", shortlist=ShortlistSettings(words=10, first=40))
    more = EXPORT.milder(asked, {"shortlist": {"words": 5000, "listed": 200.0}})
    assert more is not None and more.shortlist == ShortlistSettings(words=20, first=80)
    assert EXPORT.milder(more, {"shortlist": {"words": 500, "listed": 200.0}}) == ExportSettings(search="graph")
    assert EXPORT.milder(ExportSettings(), {}) is None


def test_a_shortlist_without_a_search_in_the_graph_or_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a shortlist is for search: graph"):
        ExportSettings(shortlist=ShortlistSettings())
    checkpoint = writing_checkpoint("bart")
    asked = ExportSettings(search="graph", shortlist=ShortlistSettings())
    rows = random_written(4, behind=True)
    with pytest.raises(BadInput, match=r"data.train.*Give --train FILE"):
        EXPORT.run(checkpoint, asked, tiny_context(tmp_path, checkpoint, validation=rows))
    checkpoint = writing_checkpoint("gpt2")
    with pytest.raises(BadInput, match="reads no source"):
        EXPORT.run(checkpoint, asked, tiny_context(tmp_path, checkpoint, train=rows, validation=rows))


def test_a_search_that_cannot_be_in_the_graph_is_refused(tmp_path: Path) -> None:
    network: Network = random_network(SHAPE)
    asked = ExportSettings(golden=2, search="graph")

    def refused(how: Generation | None, task: Task) -> str:
        checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing(), how).of(network)
        context = tiny_context(tmp_path, checkpoint, validation=random_rows(6))
        with pytest.raises((BadInput, Unsupported)) as error:
            EXPORT.run(checkpoint, asked, replace(context, task=task))
        return str(error.value)

    how, task = Generation(end=(2,), max_tokens=5), TextClassification()
    assert "nothing is searched" in refused(None, task)
    assert "with do_sample, repetition_penalty" in refused(
        replace(how, sampling=Sampling(), repetition_penalty=1.5), task
    )
    assert "what every word costs" in refused(how, task_named("text-generation"))
