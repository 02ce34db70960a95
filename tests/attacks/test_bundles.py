"""Whatever was done to a bundle on its way is seen before it is used: exit code 2, what, where and what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support.bundles import edit, forge, forge_model, restamp, tiny_translator

from compress.cli import main
from export.generator import Generator
from export.verify import verify_bundle
from models.errors import BadFile, Mismatch

Harm = Callable[[Path], object]


def code_of(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(stop.value.code or 0)


# What happens on the way: a file is changed, lost, or comes on top.


def changed_weight(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(data))


def changed_page(bundle: Path) -> None:
    text = (bundle / "README.md").read_text()
    (bundle / "README.md").write_text(text.replace("How", "Who"))


def lost_tokenizer(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()


def lost_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def cut_off_model(bundle: Path) -> None:
    os.truncate(bundle / "model.onnx", 1000)


def more_files(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")


def dropped_by_a_system(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


def more_folders(bundle: Path) -> None:
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "x.pyc").write_bytes(b"x")


def fifo(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")


def linked_file(bundle: Path) -> None:
    shutil.move(bundle / "config.json", bundle.parent / "config.json")
    (bundle / "config.json").symlink_to(bundle.parent / "config.json")


def linked_folder(bundle: Path) -> None:
    (bundle / "1_Pooling").symlink_to(bundle.parent, target_is_directory=True)


def unlisted_reader(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda manifest: manifest["files"].pop("tokenizer.json"))


# What a forger writes into the manifest.


def path_that_climbs(bundle: Path) -> None:
    (bundle.parent / "secret").write_text("s")
    edit(bundle / "manifest.json", lambda it: it["files"].update({"../secret": {"sha256": "0" * 64, "bytes": 1}}))


def path_from_the_root(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it["files"].update({"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}))


def model_outside(bundle: Path) -> None:
    entry = json.loads((bundle / "manifest.json").read_text())["files"]["model.onnx"]
    shutil.move(bundle / "model.onnx", bundle.parent / "model.onnx")
    edit(bundle / "manifest.json", lambda it: it.update(model="../model.onnx", files={"../model.onnx": entry}))


def repeated_key(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"target"', '"target": "mobile", "target"', 1))


def unknown_field(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it.update(run_first="install.sh"))


def wrong_type(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it.update(parameters="many"))


def another_format(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it.update(format=2))


def endless_number(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"format": 1', f'"format": {"1" * 5000}'))


def nested_without_end(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("[" * 100_000)


def another_size(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it["files"]["model.onnx"].update(bytes=17))


def other_ports(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it["outputs"][0].update(shape=["batch", 2]))


def another_shape(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda it: it["shape"].pop("hidden_size"))


def without_golden(bundle: Path) -> None:
    (bundle / "golden.json").unlink()
    edit(bundle / "manifest.json", lambda it: it["files"].pop("golden.json"))


# What a forger changes, and stamps with its true digest.


def no_examples(bundle: Path) -> None:
    forge(bundle, "golden.json", lambda it: it.update(examples=[]))


def examples_that_are_no_numbers(bundle: Path) -> None:
    forge(bundle, "golden.json", lambda it: it["examples"][0].update(logits=[float("nan")] * 3))


def examples_beyond_all_numbers(bundle: Path) -> None:
    text = (bundle / "golden.json").read_text()
    (bundle / "golden.json").write_text(text.replace('"tolerance": 0.001', '"tolerance": 1e999'))
    restamp(bundle, "golden.json")


def wrong_examples(bundle: Path) -> None:
    forge(bundle, "golden.json", lambda it: it["examples"][1].update(logits=[0.0, 0.0, 9.0]))


def forgiving_examples(bundle: Path) -> None:
    wrong_examples(bundle)
    forge(bundle, "golden.json", lambda it: it.update(tolerance=100.0))


def examples_of_no_word(bundle: Path) -> None:
    forge(bundle, "golden.json", lambda it: it["examples"][0]["input_ids"].__setitem__(0, 10**6))


def no_tokenizer(bundle: Path) -> None:
    forge(bundle, "tokenizer.json", lambda it: it.update(model={"type": "Unheard"}))


def words_beyond_the_table(bundle: Path) -> None:
    forge(bundle, "tokenizer.json", lambda it: it["model"]["vocab"].update(beyond=5000))


def swapped_labels(bundle: Path) -> None:
    forge(bundle, "config.json", lambda it: it["id2label"].update({"0": "b", "1": "a"}))


def more_labels(bundle: Path) -> None:
    names = {"0": "a", "1": "b", "2": "c", "3": "d"}
    numbers = {name: int(number) for number, name in names.items()}
    forge(bundle, "config.json", lambda it: it.update(id2label=names, label2id=numbers, num_labels=4))
    edit(bundle / "manifest.json", lambda it: it["shape"]["head"].update(labels=["a", "b", "c", "d"]))


def no_onnx(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"hello, I am a model")
    restamp(bundle, "model.onnx")


def renamed(bundle: Path, name: str) -> None:
    (bundle / "model.onnx").rename(bundle / name)
    edit(bundle / "manifest.json", lambda it: (it["files"].pop("model.onnx"), it.update(model=name)))
    restamp(bundle, name)


def no_ort(bundle: Path) -> None:
    renamed(bundle, "model.ort")


def another_ending(bundle: Path) -> None:
    renamed(bundle, "model.pkl")


def model_of_no_numbers(bundle: Path) -> None:
    def harm(model: onnx.ModelProto) -> None:
        bias = next(one for one in model.graph.initializer if one.name == "head/output/bias")
        bias.raw_data = b"\0\0\xc0\x7f" * 3

    forge_model(bundle, harm)


# Weights in another file, wherever a graph can name one.


def outside(name: str = "w") -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    return tensor


def constant() -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], ["w"], value=outside())


def outside_weight(bundle: Path) -> None:
    forge_model(bundle, lambda model: model.graph.initializer.append(outside()))


def outside_sparse(bundle: Path) -> None:
    forge_model(bundle, lambda it: it.graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside())))


def outside_constant(bundle: Path) -> None:
    forge_model(bundle, lambda model: model.graph.node.append(constant()))


def outside_branch(bundle: Path) -> None:
    inner = onnx.helper.make_graph([constant()], "inner", [], [])
    branch = onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    forge_model(bundle, lambda model: model.graph.node.append(branch))


def outside_function(bundle: Path) -> None:
    opset = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("own", "f", [], ["w"], [constant()], opset)
    forge_model(bundle, lambda model: model.functions.append(function))


ON_THE_WAY: list[tuple[Harm, str]] = [
    (changed_weight, "model.onnx does not match"),
    (changed_page, "README.md does not match"),
    (lost_tokenizer, "tokenizer.json is missing"),
    (lost_manifest, "manifest.json"),
    (cut_off_model, "model.onnx has 1000 bytes"),
    (more_files, "notes.txt is not listed"),
    (dropped_by_a_system, ".DS_Store is not listed"),
    (more_folders, "__pycache__ is not listed"),
    (fifo, "config.json is no file"),
    (linked_file, "config.json"),
    (linked_folder, "1_Pooling"),
    (unlisted_reader, "tokenizer.json is not listed"),
]
IN_THE_MANIFEST: list[tuple[Harm, str]] = [
    (path_that_climbs, "'../secret'"),
    (path_from_the_root, "'/etc/passwd'"),
    (model_outside, "'../model.onnx'"),
    (repeated_key, "the key 'target' stands twice"),
    (unknown_field, "run_first"),
    (wrong_type, "parameters"),
    (another_format, "format"),
    (endless_number, "manifest.json"),
    (nested_without_end, "manifest.json"),
    (another_size, "model.onnx has"),
    (other_ports, "declares the outputs"),
    (another_shape, "hidden_size"),
    (without_golden, "golden.json is not among its files"),
]
FORGED: list[tuple[Harm, str]] = [
    (no_examples, "golden.json"),
    (examples_that_are_no_numbers, "NaN is not a number"),
    (examples_beyond_all_numbers, "tolerance"),
    (wrong_examples, "golden example 1 differs"),
    (forgiving_examples, "its tolerance is 100"),
    (examples_of_no_word, "golden.json"),
    (no_tokenizer, "tokenizer.json"),
    (words_beyond_the_table, "tokenizer.json gives ids up to 5000"),
    (swapped_labels, "id2label"),
    (more_labels, "an answer has 4 numbers, and the model gives 3"),
    (no_onnx, "model.onnx"),
    (no_ort, "model.ort"),
    (another_ending, "model.pkl"),
    (model_of_no_numbers, "differs by nan"),
]
OUTSIDE: list[Harm] = [outside_weight, outside_sparse, outside_constant, outside_branch, outside_function]
ALL = [*ON_THE_WAY, *IN_THE_MANIFEST, *FORGED, *((harm, "model.onnx") for harm in OUTSIDE)]


@pytest.mark.parametrize(("harm", "told"), ALL, ids=lambda value: getattr(value, "__name__", ""))
def test_a_harmed_bundle_is_refused(bundle: Path, harm: Harm, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    harm(bundle)
    assert code_of("verify", str(bundle)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert "where: " in said.err
    assert "try: " in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("harm", OUTSIDE)
def test_weights_outside_are_named_as_such(bundle: Path, harm: Harm) -> None:
    harm(bundle)
    with pytest.raises(BadFile, match="weights such as 'w' lie outside the file"):
        verify_bundle(bundle)


def test_what_a_machine_computes_otherwise_is_no_bad_file(bundle: Path) -> None:
    wrong_examples(bundle)
    with pytest.raises(Mismatch):
        verify_bundle(bundle)


@pytest.mark.parametrize("harm", [linked_file, path_that_climbs, model_outside, *OUTSIDE])
def test_an_answer_is_refused_too(bundle: Path, harm: Harm, capsys: pytest.CaptureFixture[str]) -> None:
    harm(bundle)
    assert code_of("predict", str(bundle), "w2 w3") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_bundle_is_the_same_elsewhere(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "far" / "Ünïcode and blanks"
    shutil.copytree(bundle, copy)
    (tmp_path / "link").symlink_to(copy, target_is_directory=True)
    for place in (copy, tmp_path / "link"):  # whoever gives a link to a bundle knows where it leads
        assert code_of("verify", str(place), "--json") == 0
        assert json.loads(capsys.readouterr().out)["examples"] == 2


def test_what_writes_is_refused_too(tmp_path: Path) -> None:
    bundle = tiny_translator(tmp_path / "bundle").directory
    verify_bundle(bundle)
    forge_model(bundle, lambda it: it.graph.initializer.append(outside()), name="encoder_model.onnx")
    with pytest.raises(BadFile, match="encoder_model.onnx: weights such as 'w'"):
        Generator.open(bundle)
    linked = tmp_path / "generation.json"
    shutil.move(bundle / "generation.json", linked)
    (bundle / "generation.json").symlink_to(linked)
    with pytest.raises(BadFile, match="links that may lead elsewhere: generation.json"):
        Generator.open(bundle)
