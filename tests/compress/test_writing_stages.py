"""Models that write, from training to int8, on tiny models and drawn texts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from compress.architectures import WRITERS, new_network
from compress.artifact import RECORD_FILE
from compress.cli import main
from compress.cli.options import Look
from compress.frontier import search
from compress.inspecting import bench_model, evaluate_model, inspect_model
from compress.pipeline import execute
from compress.recipe import Recipe, make_recipe
from compress.record import RunResult
from compress.report.files import write_report
from compress.settings import ArchitectureSettings
from compress.starter import write_starter
from export.bundle import Bundle
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.data import Table
from models.encoding import encode
from models.errors import BadInput, Unsupported
from models.evaluation import written_tokens
from models.kinds import Positions
from models.parallel import read_written
from models.shape import HeadShape
from models.targets import TextTargets
from models.tasks import task_named
from models.writing import texts_written

SMALL = {"layers": 1, "hidden_size": 32, "heads": 2, "ffn": 48, "positions": 24, "vocab_size": 290, "beams": 2}
STAGES: dict[str, Any] = {
    "train": {"epochs": 12, "batch_size": 16, "learning_rate": 5e-3, "dropout": 0.0, "label_smoothing": 0.1},
    "distill": {
        "layers": 1,
        "epochs": 8,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "losses": {"kl": 1.0, "mse": 0.1, "hidden": 0.1},
    },
    "quantize": {"calibration_examples": 8},
    "measure": {"rounds": 4, "texts": 4},
}


PRUNE: dict[str, Any] = {
    "sparsity": 0.1,
    "rounds": 1,
    "examples": 64,
    "ffn_multiple": 8,
    "recovery": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "losses": {"kl": 1.0, "mse": 0.1}},
}


def write_lines(folder: Path, name: str, *, rows: int, seed: int, letters: str = "abcdef") -> str:
    """Write words and, beside them, each of them in capitals."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choice(letters) for _ in range(draw.randrange(2, 5))) for _ in range(rows)]
    for ending, each in (("low", lines), ("up", [line.upper() for line in lines])):
        (folder / f"{name}.{ending}").write_text("".join(f"{line}\n" for line in each))
    return str(folder / f"{name}.low")


def translating(folder: Path, **changes: Any) -> dict[str, Any]:
    data = {
        "train": write_lines(folder, "train", rows=300, seed=0),
        "validation": write_lines(folder, "validation", rows=60, seed=1),
        "label": "up",
        "max_length": 24,
    }
    train = {**STAGES["train"], "architecture": {**SMALL, "family": "marian", "decoder_layers": 2}}
    gates = {"default": {"accuracy": {"max_loss": 99.0}}, "export": {"speed": {"min_speedup": 0.01}}}
    stages = {**STAGES, "train": train, "distill": {**STAGES["distill"], "decoder_layers": 1}}
    return {"name": "tiny", "task": "translation", "data": data, "gates": gates, **stages, **changes}


class Done(NamedTuple):
    """A run with what it was told."""

    directory: Path
    cache: Path
    recipe: Recipe
    result: RunResult

    @property
    def look(self) -> Look:
        return Look(data=self.recipe.data.validation, label="up", cache=self.cache, rounds=4)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Return a run from lines of text to a pruned bundle in int8."""
    folder = tmp_path_factory.mktemp("translator")
    recipe = make_recipe(translating(folder, prune=PRUNE, export={"golden": 2}), where="test")
    result = execute(recipe, out=folder, cache=folder / "cache")
    return Done(folder / "tiny", folder / "cache", recipe, result)


def test_from_lines_of_text_to_a_translator_in_int8(translator: Done) -> None:
    result = translator.result
    assert [stage.stage for stage in result.stages] == ["train", "distill", "prune", "quantize", "export"]
    trained, taught, cut, rounded, written = (stage.validation for stage in result.stages)
    assert trained.metric == "bleu" and trained.estimate > 0.5  # it learnt: what is not learnt has none
    assert trained.besides[0].name == "chrf" and trained.besides[0].estimate > 0.5
    assert min(taught.estimate, cut.estimate, rounded.estimate, written.estimate) > 0.2
    assert rounded.bytes < cut.bytes < taught.bytes < trained.bytes
    assert len(result.stages[3].artifact.details["sensitivity"]) == result.stages[3].int8
    student = Checkpoint.load(translator.directory / "1-distill")
    assert student.shape.decoder is not None and len(student.shape.decoder.layers) == 1
    assert student.generation is not None and student.generation.beams == 2
    read, wrote = result.stages[2].layers
    assert (read.cross_heads, wrote.cross_heads) in ((None, 1), (None, 2))
    assert cut.parameters < taught.parameters
    again = execute(translator.recipe, out=translator.directory.parent, cache=translator.cache)
    assert not again.computed
    facts = evaluate_model(str(translator.directory / "4-quantize"), translator.look)
    assert facts["estimate"] == pytest.approx(rounded.estimate)
    assert facts["besides"]["chrf"]["estimate"] == pytest.approx(rounded.besides[0].estimate)


def test_what_writes_is_judged_and_timed_as_a_bundle(translator: Done) -> None:
    last = translator.result.last
    accuracy, speed = last.verdicts
    assert (accuracy.gate, accuracy.n, accuracy.decidable) == ("accuracy", 60, True)
    assert (speed.gate, speed.n, speed.decidable) == ("speed", 4, True)
    assert accuracy.passed and speed.passed and translator.result.passed
    own, theirs = last.validation.latency, last.validation.baseline_latency
    assert own is not None and theirs is not None and len(own.lengths) == 4
    assert 0 < min(times for one in own.rounds for times in one) <= max(times for one in own.rounds for times in one)
    # Beams of a text share a range in the runtime, and have one each in PyTorch: few words differ.
    before = translator.result.stages[3].validation
    assert last.validation.estimate == pytest.approx(before.estimate, abs=0.1)
    assert np.mean(np.equal(last.validation.statistics, before.statistics).all(axis=1)) > 0.8
    bundle = translator.directory / "bundle"
    assert verify_bundle(bundle).examples == 2
    told = Bundle.open(bundle).manifest.measurements["bundle"]
    assert (told["metric"], told["estimate"]) == ("bleu", last.validation.estimate)


def test_a_search_prunes_what_writes_level_by_level(translator: Done, tmp_path: Path) -> None:
    untrained = {**PRUNE, "round_epochs": 0, "recovery": {"epochs": 0}}
    values = {
        "name": "found",
        "task": "translation",
        "teacher": str(translator.directory / "0-train"),
        "data": translator.recipe.data.model_dump(),
        "prune": untrained,
        "quantize": {"sensitivity": False},
        "export": {"golden": 1},
        "measure": STAGES["measure"],
        "search": {"max_drop": 99.0, "levels": 2},
    }
    result = search(make_recipe(values, where="test"), out=tmp_path, cache=translator.cache)
    whole, cut = result.stages[1:]
    assert whole.layers == result.stages[0].layers != cut.layers
    assert cut.validation.parameters < whole.validation.parameters
    assert result.notes == ["2 levels were asked for"]  # whether one is faster, so small models do not tell
    trained = make_recipe({**values, "name": "trained", "prune": PRUNE}, where="test")
    with pytest.raises(Unsupported, match="Set it to false"):
        search(trained, out=tmp_path, cache=translator.cache)


def test_commands_look_at_a_bundle_that_writes(translator: Done) -> None:
    bundle = str(translator.directory / "bundle")
    facts = evaluate_model(
        bundle, translator.look.model_copy(update={"teacher": str(translator.directory / "0-train")})
    )
    assert facts["estimate"] == pytest.approx(translator.result.last.validation.estimate)
    assert facts["teacher"]["estimate"] == pytest.approx(translator.result.stages[0].validation.estimate)
    found = bench_model(bundle, translator.look)
    assert found["texts"] == 60 and min(found["texts_per_second"], found["baseline_texts_per_second"]) > 0
    described = inspect_model(bundle)
    read, wrote = translator.result.last.layers
    assert [described[name][0]["heads"] for name in ("layers", "decoder_layers")] == [read.heads, wrote.heads]
    assert described["decoder_layers"][0]["cross_heads"] == wrote.cross_heads
    with pytest.raises(Unsupported, match="a recipe for a model that writes"):
        teacher = str(translator.directory / "0-train")
        out, cache = translator.directory / "recipe.yaml", translator.cache
        write_starter(out, teacher=teacher, train="a", validation="b", name="x", cache=cache)
    latency = write_report(translator.result, translator.directory).stages[-1].latency
    assert latency is not None and latency.p50_ms > 0


@pytest.mark.usefixtures("timed_by_size")
def test_a_search_in_the_graph_is_judged_as_one_on_the_host(translator: Done, tmp_path: Path) -> None:
    directory, data = translator.directory, translator.recipe.data
    words = ["--task", "translation", "--teacher", str(directory / "0-train"), "--validation", str(data.validation)]
    words += ["--label", "up", "--max-length", "24", "--search", "graph", "--golden", "2", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["export", str(directory / "4-quantize"), *words, "--out", str(tmp_path / "out")])
    assert stop.value.code == 0
    bundle = tmp_path / "out"
    assert {file.name for file in bundle.iterdir() if file.suffix == ".onnx"} == {"model.onnx"}
    record = json.loads((bundle / "artifact.json").read_text())
    assert record["details"]["same_texts"] > 0.95
    assert verify_bundle(bundle, besides=[RECORD_FILE]).examples == 2
    facts = evaluate_model(str(bundle), translator.look)
    assert facts["estimate"] == pytest.approx(translator.result.last.validation.estimate, abs=0.02)
    assert bench_model(str(bundle), translator.look)["speedup"]["estimate"] > 0


@pytest.mark.usefixtures("timed_by_size")
def test_a_shortlist_is_judged_and_timed_as_part_of_the_search(translator: Done, tmp_path: Path) -> None:
    directory, data = translator.directory, translator.recipe.data
    words = ["--task", "translation", "--teacher", str(directory / "0-train"), "--validation", str(data.validation)]
    words += ["--label", "up", "--max-length", "24", "--search", "graph", "--golden", "2", "--json"]
    words += ["--shortlist-words", "6", "--shortlist-first", "8", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(["export", str(directory / "4-quantize"), *words])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["export", str(directory / "4-quantize"), *words, "--train", str(data.train)])
    assert stop.value.code == 0
    record = json.loads((tmp_path / "out" / "artifact.json").read_text())
    told = record["details"]["shortlist"]
    assert told["listed"] < 40 < told["words"] and told["covered"] > 0.98
    assert verify_bundle(tmp_path / "out", besides=[RECORD_FILE]).examples == 2
    facts = evaluate_model(str(tmp_path / "out"), translator.look)
    assert facts["estimate"] == pytest.approx(translator.result.last.validation.estimate, abs=0.03)


def test_a_vocabulary_is_trimmed_to_what_is_read_and_written(translator: Done, tmp_path: Path) -> None:
    few = {
        role: write_lines(tmp_path, role, rows=60, seed=seed, letters="abc")
        for seed, role in enumerate(("train", "validation"))
    }
    recipe = {
        "name": "trimmed",
        "task": "translation",
        "teacher": str(translator.directory / "0-train"),
        "data": {**few, "foreign": translator.recipe.data.validation, "label": "up", "max_length": 24},
        "trim": {},
        "export": {"golden": 2},
        "gates": {
            "default": {"accuracy": {"max_loss": 99.0}},
            "trim": {"agreement": {"min_share": 0.02}},
            "export": {"speed": {"min_speedup": 0.01}},
        },
        "measure": {"rounds": 4, "texts": 4},
    }
    result = execute(make_recipe(recipe, where="test"), out=tmp_path, cache=tmp_path / "cache")
    teacher, trimmed, written = result.stages
    told = trimmed.artifact.details
    assert told["pieces"]["after"] < told["pieces"]["before"]
    assert told["positions"]["after"] == told["positions"]["before"] == SMALL["positions"]
    assert (told["covered"], told["validation"]["changed"]) == (1.0, 0)
    # Beams are ranked by shares of all words, and there are fewer: a text may change, but no letter is lost.
    assert trimmed.validation.estimate == pytest.approx(teacher.validation.estimate, abs=0.05)
    assert written.validation.estimate == pytest.approx(trimmed.validation.estimate, abs=0.05)
    assert trimmed.foreign is not None and not trimmed.foreign.predictions
    verdict = next(one for one in trimmed.verdicts if one.gate == "agreement")
    assert verdict.n == 60 and 0.02 < verdict.estimate < 1.0
    before, after = (Checkpoint.load(tmp_path / "trimmed" / name) for name in ("0-teacher", "3-trim"))
    table = read_written(Wanted(str(translator.recipe.data.validation)))
    data = [
        encode(
            table, one.tokenizing, TextTargets(None), max_length=24, cache=tmp_path / "cache", generation=one.generation
        )
        for one in (before, after)
    ]
    texts = [
        texts_written(written_tokens(one.network(), rows, one.generation), rows)  # type: ignore[arg-type]
        for one, rows in zip((before, after), data, strict=True)
    ]
    assert trimmed.foreign.scores == [float(one == other) for one, other in zip(*texts, strict=True)]
    assert verify_bundle(tmp_path / "trimmed" / "bundle").examples == 2
    assert "Same answers elsewhere" in (write_report(result, tmp_path), (tmp_path / "report.html").read_text())[1]


def test_a_model_that_goes_on_is_judged_by_what_words_cost(tmp_path: Path) -> None:
    draw = random.Random(0)
    for name in ("train", "validation"):
        words = " ".join(["ab", "ba", "ac", "ca"][draw.randrange(4)] for _ in range(1200))
        (tmp_path / f"{name}.txt").write_text(words)
    data = {"train": str(tmp_path / "train.txt"), "validation": str(tmp_path / "validation.txt"), "max_length": 16}
    train = {**STAGES["train"], "architecture": {**SMALL, "family": "gpt2"}}
    recipe = {**translating(tmp_path), "task": "text-generation", "data": data, "train": train, "export": {}}
    recipe["distill"] = STAGES["distill"]
    result = execute(make_recipe(recipe, where="test"), out=tmp_path, cache=tmp_path / "cache")
    trained, *_, rounded, written = (stage.validation for stage in result.stages)
    assert trained.metric == "token_loss" and not trained.higher_is_better
    assert trained.estimate < np.log(SMALL["vocab_size"]) / 2
    assert trained.besides[0].estimate == pytest.approx(np.exp(trained.estimate))
    assert len(trained.scores) > 60
    assert result.passed and written.latency is not None
    assert written.scores == pytest.approx(rounded.scores, abs=0.05)
    assert written.estimate == pytest.approx(rounded.estimate, abs=1e-3)


def test_running_text_is_judged_in_blocks_that_a_smaller_vocabulary_does_not_move(tmp_path: Path) -> None:
    draw = random.Random(0)
    for name, choice in (("train", ["ab", "ba"]), ("validation", ["ab", "ba", "ac", "ca"])):
        (tmp_path / f"{name}.txt").write_text(" ".join(draw.choice(choice) for _ in range(300)))
    table = Table([(tmp_path / "validation.txt").read_text()], None, None, "rows", "0")
    made = new_network(ArchitectureSettings(**{**SMALL, "family": "gpt2", "positions": 16}), table, None, tmp_path)
    (tmp_path / "teacher").mkdir()
    Checkpoint.new(made.shape, made.reader, seed=0, generation=made.generation).save(tmp_path / "teacher")
    recipe = {
        "name": "trimmed",
        "task": "text-generation",
        "teacher": str(tmp_path / "teacher"),
        "data": {role: str(tmp_path / f"{role}.txt") for role in ("train", "validation")},
        "trim": {},
        "export": {"golden": 2},
        "gates": {"default": {}},
        "measure": STAGES["measure"],
    }
    result = execute(make_recipe(recipe, where="test"), out=tmp_path, cache=tmp_path / "cache")
    teacher, trimmed, written = result.stages
    told = trimmed.artifact.details
    assert 0 < told["validation"]["changed"] <= told["validation"]["texts"] == len(teacher.validation.scores)
    assert told["validation"]["tokens_per_text"]["after"] > told["validation"]["tokens_per_text"]["before"]
    for stage in (trimmed, written):
        costs, counted = np.array(stage.validation.statistics).T
        assert counted.tolist() == np.array(teacher.validation.statistics)[:, 1].tolist()
        # As unlikely as drawn weights make a token, and there are more of them.
        assert costs.sum() > np.array(teacher.validation.statistics)[:, 0].sum()
    assert written.validation.estimate == pytest.approx(trimmed.validation.estimate, abs=1e-3)
    trimmed_model = str(tmp_path / "trimmed" / "3-trim")
    look = Look(data=str(tmp_path / "validation.txt"), teacher=recipe["teacher"], rounds=4, cache=tmp_path / "cache")
    facts = evaluate_model(trimmed_model, look)
    assert facts["estimate"] == pytest.approx(trimmed.validation.estimate)
    assert facts["teacher"]["estimate"] == pytest.approx(teacher.validation.estimate)
    with pytest.raises(BadInput, match="what a text goes on with"):
        data = {**recipe["data"], "foreign": recipe["data"]["validation"]}
        execute(make_recipe({**recipe, "data": data}, where="test"), out=tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize("family", [*WRITERS, "gpt2"])
def test_a_new_network_is_one_of_its_family(family: str, tmp_path: Path) -> None:
    table = Table(["a b", "b a"] * 9, None, None if family == "gpt2" else [("A B",), ("B A",)] * 9, "rows", "0")
    settings = ArchitectureSettings(**{**SMALL, "family": family})
    made = new_network(settings, table, None, tmp_path)
    checkpoint = Checkpoint.new(made.shape, made.reader, seed=0, generation=made.generation)
    (tmp_path / "theirs").mkdir()
    checkpoint.save_hugging_face(tmp_path / "theirs")
    again = Checkpoint.load(tmp_path / "theirs")
    ids = {"input_ids": torch.tensor([[5, 6, 7]])}
    ids |= {} if family == "gpt2" else {"decoder_input_ids": torch.tensor([[1, 9]])}
    torch.testing.assert_close(again.network()(**ids), checkpoint.network()(**ids))
    assert again.generation is not None and again.generation.end == (2,)
    (encoding,) = made.reader.encode(["a"], max_length=9)  # type: ignore[attr-defined]
    assert (encoding.ids[-1] == 2) is (family != "gpt2")
    assert made.shape.pre_norm is (family in ("pegasus", "gpt2"))
    assert (made.shape.positions is Positions.LEARNED) is (family in ("bart", "gpt2"))


def test_rows_and_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    both, alone = Table(["a"], None, [("A",)], "rows", "0"), Table(["a"], None, None, "rows", "0")
    for table, family, head in (
        (both, "gpt2", None),
        (both, "bert", None),
        (alone, "marian", None),
        (alone, "roberta", None),
        (both, "marian", HeadShape(("a", "b"))),
    ):
        with pytest.raises(BadInput, match=family):
            new_network(ArchitectureSettings(**{**SMALL, "family": family}), table, head, tmp_path)


@pytest.mark.usefixtures("timed_by_size")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": {**STAGES["distill"], "copies": 1}}, "nothing says what to write"),
        ({"distill": {**STAGES["distill"], "losses": {"relations": 1.0}}}, "relations are learnt of encoders alone"),
        ({"trim": {"recovery": {"epochs": 1.0}}}, "trim.recovery: is for models that write nothing"),
        ({"distill": {"hidden_size": 32}}, "distill.hidden_size: is for models that write nothing"),
        ({"distill": {"norm": "elementwise"}}, "distill.norm: is for models that write nothing"),
        ({"quantize": {"embeddings": "int4", "compensate": True}}, "compensate: is for models that write nothing"),
        ({"task": "text-generation"}, "needs a model that goes on|does not write such rows|format"),
    ],
)
def test_what_has_nothing_to_write_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = translating(tmp_path, **changes)
    recipe["train"] = {**recipe["train"], "epochs": 0.05}
    with pytest.raises((BadInput, Unsupported), match=message):
        execute(make_recipe(recipe, where="test"), out=tmp_path, cache=tmp_path / "cache")


def test_columns_of_json_lines_are_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"source": ["a b.", "c"], "target": ["A", "B"]}) + "\n")
    table = read_written(Wanted(str(path)))
    assert task_named("summarization").targets(table, ()).texts == ["A"]  # type: ignore[union-attr]
