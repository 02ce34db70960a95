"""The export of a model that takes texts, and everything that is done with its bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.bundles import forge, forge_model
from support.examples import tiny_context
from support.networks import random_network, tiny_shape
from support.text_tokenizers import TEXTS, bert_tokenizing, changed

from compress.cli import main
from compress.device import device_report, verify_here
from compress.inspecting import inspect_model
from compress.machine import calls
from compress.recipe import make_recipe
from compress.settings import ExportSettings
from compress.sources import load_inputs
from compress.stages import EXPORT
from export.bundle import Bundle
from export.latency import measure
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.data import read_table
from models.encoding import encode
from models.errors import BadFile, BadInput, Mismatch, Unsupported
from models.tasks.text_classification import TextClassification
from models.tokenizing import Tokenizing

pytest.importorskip("onnxruntime_extensions")

UNSEEN = ["A NAÏVE café, 中文!", "", "good " * 90]


def checkpoint_of(tokenizing: Tokenizing) -> Checkpoint:
    network = random_network(tiny_shape(vocab_size=tokenizing.vocab_size))
    return Checkpoint(network.shape, {}, tokenizing).of(network)


def write_rows(path: Path, *, paired: bool) -> str:
    rows = [{"text": text, "label": "abc"[number % 3]} for number, text in enumerate(TEXTS)]
    if paired:
        rows = [{**row, "text_pair": TEXTS[-1 - number]} for number, row in enumerate(rows)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module", params=[False, True], ids=["one text", "two texts"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the bundle that takes texts and the one that takes their tokens."""
    folder, checkpoint = tmp_path_factory.mktemp("exported"), checkpoint_of(bert_tokenizing())
    table = read_table(write_rows(folder / "data.jsonl", paired=request.param))
    targets = TextClassification().targets(table, checkpoint.shape.labels)
    data = encode(table, checkpoint.reader, targets, max_length=16, cache=folder / "cache")
    context = tiny_context(folder, checkpoint, validation=data)
    for text_in in (True, False):
        made = EXPORT.run(checkpoint, ExportSettings(text_in=text_in), context)
        assert ("text_in" in made.details) == text_in
        (folder / str(text_in)).mkdir()
        made.product.save(folder / str(text_in))
    return folder / "True", folder / "False"


def test_no_class_is_named_to_load_it(both: tuple[Path, Path]) -> None:
    text, plain = (json.loads((directory / "config.json").read_text()) for directory in both)
    assert text["architectures"] == []
    assert plain["architectures"] == ["BertForSequenceClassification"]
    assert text["id2label"] == plain["id2label"]


def test_it_answers_as_the_bundle_that_takes_tokens(both: tuple[Path, Path]) -> None:
    text, plain = (Bundle.open(directory) for directory in both)
    names = [port.name for port in text.manifest.inputs]
    assert (names[0], text.takes_texts, plain.takes_texts) == ("text", True, False)
    assert [port.name for port in text.manifest.outputs] == ["logits", "label", "probabilities"]
    pairs = list(reversed(UNSEEN)) if len(names) == 2 else None
    for ours, theirs in zip(text.predict(UNSEEN, pairs), plain.predict(UNSEEN, pairs), strict=True):
        assert ours.values["label"] == theirs.values["label"]
        expected = list(theirs.values["probabilities"].values())
        np.testing.assert_allclose(list(ours.values["probabilities"].values()), expected, atol=1e-5)
    assert text.predict([], None if pairs is None else []) == []


def test_the_golden_texts_are_verified_and_another_text_is_seen(both: tuple[Path, Path], tmp_path: Path) -> None:
    assert verify_bundle(both[0]).examples == len(TEXTS)
    copy = tmp_path / "copy"
    copy.mkdir()
    Bundle.open(both[0]).save(copy)
    golden = json.loads((copy / "golden.json").read_text(encoding="utf-8"))
    assert [example["text"] for example in golden["examples"]] == list(TEXTS)
    forge(copy, "golden.json", lambda value: value["examples"][0].update(text="bad film"))
    with pytest.raises(Mismatch, match="golden example 0 differs"):
        verify_bundle(copy)


def test_a_label_that_is_not_the_likeliest_is_seen(both: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    Bundle.open(both[0]).save(copy)

    def turn(model: onnx.ModelProto) -> None:
        *_, names = (node for node in model.graph.node if node.op_type == "LabelEncoder")  # others are the tokenizer's
        labels = next(one.strings for one in names.attribute if one.name == "values_strings")
        labels.append(labels.pop(0))

    forge_model(copy, turn)
    with pytest.raises(BadFile, match="names another label for golden example"):
        verify_bundle(copy)


def test_the_readme_runs_and_gives_the_label(both: tuple[Path, Path]) -> None:
    text = "What do you make of this?"
    paired = len(Bundle.open(both[0]).manifest.inputs) == 2
    (answer,) = Bundle.open(both[0]).predict([text], [text] if paired else None)
    code = (both[0] / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(command, cwd=both[0], check=True, capture_output=True, text=True)
    assert said.stdout.split() == [
        answer.values["label"],
        f"{answer.values['probabilities'][answer.values['label']]:.1%}",
    ]


def test_it_is_measured_by_its_texts(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "data.jsonl", paired=len(Bundle.open(both[0]).manifest.inputs) == 2)
    found = []
    for directory in both:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", str(directory), "--data", data, "--cache", str(tmp_path / "cache"), "--json"])
        assert stop.value.code == 0
        found.append(json.loads(capsys.readouterr().out)["estimate"])
    assert found[0] == found[1]


def test_it_is_timed_by_its_texts(both: tuple[Path, Path], tmp_path: Path) -> None:
    bundle = Bundle.open(both[0])
    table = read_table(write_rows(tmp_path / "data.jsonl", paired=len(bundle.manifest.inputs) == 2))
    data = encode(table, bundle.reader, None, max_length=16, cache=tmp_path / "cache")
    found = calls(data, np.arange(len(data)), texts=True)
    assert [str(call.arrays["text"][0]) for call in found] == list(TEXTS)
    assert [call.tokens for call in found] == data.lengths.tolist()
    assert measure(bundle.model, found, rounds=1).p50_ms > 0.0


def test_a_device_needs_no_pytorch(both: tuple[Path, Path]) -> None:
    paired = len(Bundle.open(both[0]).manifest.inputs) == 2
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pathlib import Path\nfrom export.bundle import Bundle\n"
        f"bundle = Bundle.open(Path({str(both[0])!r}))\n"
        f"bundle.predict(['good'], {['bad'] if paired else None})\n"
        "print({'torch', 'transformers', 'onnxruntime_extensions'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "set()\n"


def test_node_proves_the_files_and_says_that_it_checked_no_outputs(both: tuple[Path, Path]) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed")
    said = subprocess.run([node, str(both[0] / "verify.mjs")], capture_output=True, text=True, check=False)
    assert said.returncode == 4, said.stderr
    assert "outputs   NOT checked: it takes texts" in said.stdout


def test_a_device_proves_it_and_reports_the_time_of_its_texts(both: tuple[Path, Path]) -> None:
    assert verify_here(both[0])["latency"]["p50_ms"] > 0.0
    report = device_report(both[0], threads=1, passes=1)
    assert (report.golden.calls, report.lengths) == (len(TEXTS), [])
    assert report.max_abs <= report.tolerance


def test_what_is_told_of_it_is_true_of_a_graph_that_takes_texts(both: tuple[Path, Path]) -> None:
    pages = [(directory / "README.md").read_text(encoding="utf-8") for directory in both]
    assert ["## In other libraries" in page for page in pages] == [False, True]
    assert ["`node verify.mjs` checks the digests alone" in page for page in pages] == [True, False]
    assert [inspect_model(str(directory)).get("text_in") for directory in both] == [True, None]


@pytest.mark.parametrize(
    ("besides", "told"),
    [
        ({"target": "web"}, "target cpu: web has no"),
        ({"target": "mobile", "lengths": (16,)}, "target cpu: mobile has no"),
        ({"search": "graph"}, "for models that answer"),
    ],
)
def test_it_goes_with_no_other_form(besides: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ExportSettings(text_in=True, **besides)


def test_half_a_surrogate_pair_is_told(both: tuple[Path, Path]) -> None:
    paired = len(Bundle.open(both[0]).manifest.inputs) == 2
    with pytest.raises(BadInput, match="UTF-8"):
        Bundle.open(both[0]).predict(["\ud83d"], ["a"] if paired else None)


def test_a_tokenizer_without_a_form_in_a_graph_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    checkpoint_of(changed(bert_tokenizing(), normalizer={"type": "NFKC"})).save(tmp_path / "model")
    data, out = write_rows(tmp_path / "data.jsonl", paired=False), tmp_path / "out"
    words = ["--validation", data, "--out", str(out), "--cache", str(tmp_path / "cache")]
    with pytest.raises(SystemExit) as stop:
        main(["export", str(tmp_path / "model"), "--text-in", *words])
    assert (stop.value.code, out.exists()) == (2, False)
    assert "normalizer of the kind NFKC" in capsys.readouterr().err


def test_a_run_hears_of_it_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    checkpoint_of(changed(bert_tokenizing(), normalizer={"type": "NFKC"})).save(tmp_path / "model")
    data = {"train": write_rows(tmp_path / "data.jsonl", paired=False)}
    plain = {"name": "tiny", "teacher": str(tmp_path / "model"), "data": data, "export": {"text_in": True}}
    with pytest.raises(Unsupported, match="normalizer of the kind NFKC"):
        load_inputs(make_recipe(plain, where="test"), cache=tmp_path / "cache")
