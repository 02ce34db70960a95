"""The program in a bundle that proves it without Python: what it lets pass, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import edit, forge, restamp, tiny_translator

from compress.artifact import Origin, seal
from export.bundle import Bundle
from export.verifier import VERIFIER_FILE

UNCHECKED = 4

Harm = Callable[[Path], object]


def node(bundle: Path, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed")
    command = [found, str(bundle / VERIFIER_FILE)]
    return subprocess.run(command, cwd=cwd or bundle, capture_output=True, text=True, check=False)


def test_files_are_proven_without_a_runtime(bundle: Path) -> None:
    said = node(bundle)
    assert said.returncode == UNCHECKED, said.stderr
    assert "files     7 right, and no others" in said.stdout
    assert f"bundle    {Bundle.open(bundle).manifest.digest}\n" in said.stdout
    assert "outputs   NOT checked" in said.stdout


def test_a_sealed_artifact_passes_with_its_record(bundle: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    seal(made, Origin("export", {}, None, {}, 0, "1"), save=Bundle.open(bundle).save, parameters=1, details={})
    assert node(made).returncode == UNCHECKED
    edit(made / "artifact.json", lambda record: record["files"].pop("config.json"))
    assert "artifact.json: is of other files than config.json" in node(made).stderr


def test_a_graph_that_takes_texts_is_left_to_python(bundle: Path) -> None:
    edit(bundle / "manifest.json", lambda manifest: manifest["inputs"][0].update(name="text", dtype="string"))
    said = node(bundle)
    assert said.returncode == UNCHECKED, said.stderr
    assert "it takes texts" in said.stdout


HARMS: list[tuple[Harm, str]] = [
    (lambda it: (it / "config.json").write_text("{}"), "config.json: has 2 bytes"),
    (lambda it: (it / "tokenizer.json").unlink(), "tokenizer.json: is missing"),
    (lambda it: (it / ".DS_Store").write_bytes(b"x"), ".DS_Store: is not listed"),
    (lambda it: (it / "empty").mkdir(), "empty: is not listed"),
    (lambda it: (it / "link").symlink_to(it.parent), "link: is a link"),
    (lambda it: (it / "manifest.json").write_text("{"), "manifest.json: "),
    (lambda it: edit(it / "manifest.json", lambda value: value.update(format=2)), "is not of format 1"),
    (lambda it: edit(it / "manifest.json", lambda value: value["files"].update({"../x": {}})), '"../x"'),
    (lambda it: edit(it / "manifest.json", lambda value: value.update(model="x.onnx")), "does not list x.onnx"),
    (lambda it: forge(it, "golden.json", lambda value: value.update(examples=[])), "golden.json: holds no examples"),
]


@pytest.mark.parametrize(("harm", "told"), HARMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_harmed_bundle_is_refused(bundle: Path, harm: Harm, told: str) -> None:
    harm(bundle)
    said = node(bundle)
    assert said.returncode == 2, said.stdout
    assert told in said.stderr
    assert "try: " in said.stderr


@pytest.fixture(scope="module", params=["onnxruntime-node", "onnxruntime-web"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an npm project with a runtime; neither needs its install script."""
    folder = tmp_path_factory.mktemp("project")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    (folder / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", request.param]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{request.param} cannot be installed: {done.stderr[-200:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_graph", "right", "wrong"),
    [(False, "texts written right within", "differs by"), (True, "texts found again", "differs by Infinity")],
)
def test_what_writes_writes_the_same(*, in_graph: bool, right: str, wrong: str, project: Path, tmp_path: Path) -> None:
    bundle = tiny_translator(tmp_path / "bundle", in_graph=in_graph).directory
    said = node(bundle, cwd=project)
    assert said.returncode == 0, said.stderr
    assert f"outputs   2 {right}" in said.stdout
    forge(bundle, "golden.json", lambda value: value["examples"][1]["written"].__setitem__(0, 4))
    said = node(bundle, cwd=project)
    assert said.returncode == 2
    assert f"golden.json: example 1 {wrong}" in said.stderr


@pytest.mark.slow
def test_outputs_and_time_are_proven_with_a_runtime(project: Path, bundle: Path) -> None:
    promise = {"bundle": {"p50_ms": 0.25}, "environment": {"threads": 1, "cpu": "Xeon"}}
    edit(bundle / "manifest.json", lambda manifest: manifest.update(measurements=promise))
    said = node(bundle, cwd=project)
    assert said.returncode == 0, said.stderr
    assert "outputs   2 examples right within" in said.stdout
    assert "the same label in 2" in said.stdout
    assert "0.250 ms at the gate (Xeon)" in said.stdout
    forge(bundle, "golden.json", lambda value: value["examples"][1].update(logits=[0.0, 0.0, 9.0]))
    said = node(bundle, cwd=project)
    assert said.returncode == 2
    assert "golden.json: example 1 differs by" in said.stderr
    (bundle / "model.onnx").write_bytes(b"hello")
    restamp(bundle, "model.onnx")
    assert "model.onnx: the runtime does not read it" in node(bundle, cwd=project).stderr
