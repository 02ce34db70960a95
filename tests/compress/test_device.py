"""A bundle on a device: timed beside its promise, told in one file, and that file in a run's report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.bundles import bundle_of, edit, restamp, tiny_bundle, tiny_translator
from support.devices import device_report
from support.networks import quantized_network, random_network, tiny_shape
from support.runs import make_run
from support.web_page import Page

from compress import device
from compress.artifact import Origin, seal
from compress.cli import main
from compress.device_record import DeviceReport, read_device_report
from compress.ledger import Ledger
from export.bundle import Bundle
from export.on_device import golden_calls, random_calls, timed_model
from export.processor import Processor, processor
from export.verify import check_bundle, verified, verify_bundle
from models.checkpoint import Checkpoint
from models.errors import BadFile, Mismatch
from models.kinds import Int8Form

SERVER = "processor : 0\nmodel name\t: Xeon\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n\nprocessor : 1\nflags : x\n"
OLD = "processor : 0\nmodel name\t: Core i7-6700\nflags\t\t: fpu sse2 avx2\n"
ARM = "processor : 0\nFeatures\t: fp asimd asimddp\n"


def call(*words: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == code


@pytest.mark.parametrize(
    ("listing", "flags", "saturates"),
    [(SERVER, ["avx2", "avx512f", "avx512_vnni"], False), (OLD, ["avx2"], True), (ARM, ["asimddp"], False)],
)
def test_a_processor_says_whether_its_sums_have_room(
    listing: str, flags: list[str], saturates: bool, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(listing)
    found = processor(tmp_path / "cpuinfo")
    assert (found.told_flags, found.saturates) == (flags, saturates)
    assert found.name
    assert processor(tmp_path / "none").saturates is None


@pytest.mark.parametrize(
    ("here", "told"),
    [
        (Processor("Core i7-6700", ("sse2", "avx2")), "Core i7-6700 has no VNNI instructions"),
        (Processor("Xeon", ("avx2", "avx_vnni")), "Xeon has room for sums"),
        (Processor("unknown", None), "On x86 without VNNI"),
    ],
)
def test_other_outputs_in_int8_are_explained(
    here: Processor, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = quantized_network(random_network(tiny_shape()), Int8Form.DYNAMIC)
    checkpoint = Checkpoint(network.shape, {}, Bundle.open(tiny_bundle(tmp_path / "f").directory).tokenizing)
    bundle = bundle_of(checkpoint.of(network), tmp_path / "bundle").directory
    edit(bundle / "golden.json", lambda golden: golden["examples"][0].update(logits=[9.0, 0.0, 0.0]))
    restamp(bundle, "golden.json")
    monkeypatch.setattr("export.verify.processor", lambda: here)
    with pytest.raises(Mismatch, match="golden example 0 differs") as raised:
        verify_bundle(bundle)
    assert told in str(raised.value.fix)
    assert ("reduced_range" in str(raised.value.fix)) == (here.saturates is not False)


def test_one_output_that_is_no_number_is_enough(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "golden_gap", lambda self, examples: [0.0, float("nan")])
    with pytest.raises(Mismatch, match="golden example 1 differs by nan"):
        verified(check_bundle(bundle))


def test_verify_tells_the_time_beside_the_promise(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promise = {"bundle": {"p50_ms": 0.5}, "environment": {"threads": 2, "cpu": "Xeon"}}
    edit(bundle / "manifest.json", lambda manifest: manifest.update(measurements=promise))
    call("verify", str(bundle), "--json")
    told = json.loads(capsys.readouterr().out)["latency"]
    assert (told["promised_p50_ms"], told["promised_on"], told["threads"]) == (0.5, "Xeon", 2)
    assert told["times_the_promise"] == told["p50_ms"] / 0.5


@pytest.mark.parametrize("measurements", [{}, {"bundle": 3}, {"bundle": {"p50_ms": None}, "environment": {"cpu": 1}}])
def test_a_bundle_may_promise_nothing(bundle: Path, measurements: dict[str, Any]) -> None:
    edit(bundle / "manifest.json", lambda manifest: manifest.update(measurements=measurements))
    assert device.Promise.of(Bundle.open(bundle)) == device.Promise(None, 1, None)


def test_a_sealed_artifact_is_verified_with_its_record(bundle: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    seal(made, Origin("export", {}, None, {}, 0, "1"), save=Bundle.open(bundle).save, parameters=1, details={})
    assert device.verify_here(made)["verified"]
    with pytest.raises(BadFile, match="artifact.json is not listed"):
        verify_bundle(made)
    edit(made / "artifact.json", lambda record: record["files"].pop("config.json"))
    with pytest.raises(BadFile, match="config.json"):
        device.verify_here(made)


def test_what_is_timed_is_of_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    opened, golden = check_bundle(bundle)
    assert [one.tokens for one in golden_calls(opened, golden)] == [4, 7]
    assert [one.tokens for one in random_calls(opened)] == [8] * 5 + [16] * 5 + [32] * 5
    assert all(one.arrays["input_ids"].max() < 50 for one in random_calls(opened))
    assert timed_model(opened) == bundle / "model.onnx"
    edit(bundle / "manifest.json", lambda manifest: manifest["inputs"][0].update(shape=["batch", 12]))
    assert [one.tokens for one in random_calls(Bundle.open(bundle))] == [12] * 5
    edit(bundle / "manifest.json", lambda manifest: manifest["inputs"][0].update(name="pixel_values"))
    assert random_calls(Bundle.open(bundle)) == []
    writer = tiny_translator(tmp_path / "writer")
    examples = check_bundle(writer.directory)
    assert [one.arrays["input_ids"].shape for one in golden_calls(*examples)] == [(1, 4), (1, 7)]
    assert random_calls(writer) == []
    assert timed_model(writer) == writer.directory


def test_a_device_tells_in_one_file_and_without_torch(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "device.json"
    words = ["bench", str(bundle), "--device-report", "--out", str(out), "--rounds", "2"]
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom compress.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    told = read_device_report(out)
    assert told.bundle == Bundle.open(bundle).manifest.digest
    assert told.agrees
    assert [(row.tokens, row.calls) for row in told.lengths] == [(8, 10), (16, 10), (32, 10)]
    assert told.golden.calls == 4
    assert told.golden.p50_ms <= told.golden.p90_ms <= told.golden.p99_ms
    assert DeviceReport.model_validate_json(told.model_dump_json()) == told


def test_a_device_that_computes_something_else_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "golden_gap", lambda self, examples: [0.0, 1.5])
    assert not device.device_report(bundle, threads=1, passes=1).agrees
    monkeypatch.setattr(Bundle, "golden_gap", lambda self, examples: [0.0, float("inf")])
    with pytest.raises(Mismatch, match="not finite"):
        device.device_report(bundle, threads=1, passes=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--device-report", "--data", "x.tsv"], "--data"), (["--out", "x.json"], "--device-report")],
)
def test_what_a_device_report_is_not_made_of(
    bundle: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call("bench", str(bundle), *words, code=2)
    assert told in capsys.readouterr().err


def test_the_page_does_not_change_a_bundles_digest(bundle: Path) -> None:
    before = Bundle.open(bundle).manifest.digest
    (bundle / "README.md").write_text("measured anew")
    restamp(bundle, "README.md")
    assert Bundle.open(bundle).manifest.digest == before
    (bundle / "config.json").write_text("{}")
    restamp(bundle, "config.json")
    assert Bundle.open(bundle).manifest.digest != before


@pytest.fixture
def run(tmp_path: Path, sealed: Path) -> Path:
    """Return the directory of a run that has handed over a bundle."""
    directory = tmp_path / "run"
    Ledger(directory).finish(make_run(stages=2))
    shutil.copytree(sealed, directory / "bundle")
    return directory


def test_devices_are_told_in_a_runs_report(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Bundle.open(run / "bundle").manifest.digest
    told = [device_report(bundle=own), device_report(bundle=own, cpu="<b>x</b>", max_abs=0.2, flags=None, lengths=[])]
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, report in zip(files, told, strict=True):
        file.write_text(report.model_dump_json())
    call("report", str(run), "--add-device", str(files[0]), "--add-device", str(files[1]), "--json")
    assert len(json.loads(capsys.readouterr().out)["devices"]) == 2
    page = Page((run / "report.html").read_text())
    for text in ("On devices", "Cortex-A76", "<b>x</b>", "9.87", "0.2 of 0.05", "15.5"):
        assert text in page.text
    call("report", str(run), "--add-device", str(files[0]), "--json")  # what is known already is told once
    assert len(json.loads(capsys.readouterr().out)["devices"]) == 2
    (run / "bundle" / "config.json").write_text("{}")
    restamp(run / "bundle", "config.json")
    call("report", str(run), "--json")  # of another bundle now
    assert json.loads(capsys.readouterr().out)["devices"] == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda value: None, "is of the bundle bbbbbbbbbbbb"),
        (lambda value: value.update(extra=1), "extra"),
        (lambda value: value["golden"].update(p50_ms=-1.0), "golden.p50_ms"),
        (lambda value: value.update(cpu="x" * 300), "cpu"),
        (lambda value: value.update(max_abs=float("nan")), "NaN"),
        (lambda value: value.pop("bundle"), "bundle"),
    ],
)
def test_a_report_that_is_not_of_this_bundle_is_refused(
    run: Path, harm: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = device_report().model_dump(mode="json")
    harm(value)
    (tmp_path / "device.json").write_text(json.dumps(value))
    call("report", str(run), "--add-device", str(tmp_path / "device.json"), code=2)
    assert told in capsys.readouterr().err
    assert not (run / "devices").exists()


def test_a_run_without_a_bundle_has_no_devices(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "bundle")
    (tmp_path / "device.json").write_text(device_report().model_dump_json())
    call("report", str(run), "--add-device", str(tmp_path / "device.json"), code=2)
    assert "no bundle" in capsys.readouterr().err
