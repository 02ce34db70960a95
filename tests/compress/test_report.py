"""The report: figures under documented keys, and a page that is whole, self-contained and readable in odd cases."""

from __future__ import annotations

import json
import re
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.devices import device_report
from support.real import ROOT
from support.runs import details_of, make_run, with_trim
from support.web_page import Page, strays

from compress.cli import main
from compress.ledger import Ledger
from compress.record import LayerRecord, Measurement, RunResult, StageResult
from compress.report import wording
from compress.report.data import Accuracy, Report, make_report
from compress.report.files import write_report
from compress.report.html import render_html
from compress.statistics import ratio_interval, tango_interval, wilson_interval
from models.errors import BadInput

DOCS = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
FREE = {"recipe", "stages[].details", "stages[].verdicts[].details"}  # their keys belong to others


def changed(run: RunResult, stage: int, **changes: Any) -> RunResult:
    """Return a run with some values of one stage changed; those of `validation`, `test` and `artifact` one by one."""
    one = run.stages[stage]
    for name in ("validation", "test", "artifact"):
        if isinstance(changes.get(name), dict):
            changes[name] = getattr(one, name).model_copy(update=changes[name])
    stages = [*run.stages[:stage], one.model_copy(update=changes), *run.stages[stage + 1 :]]
    return run.model_copy(update={"stages": stages})


def failed_run() -> RunResult:
    """Return a run whose last stage is far too slow and too wrong."""
    run = make_run(stages=3)
    verdicts = [
        one.model_copy(update={"passed": False, "advice": "Try a milder setting.", "message": f"{one.gate} gate: bad."})
        for one in run.stages[2].verdicts
    ]
    return changed(run, 2, verdicts=verdicts).model_copy(update={"passed": False})


def expanded(key: str) -> set[str]:
    """Return the keys that a documented one stands for: a.{b,c} is a.b and a.c."""
    parts = [part.strip("{}").split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^}]*\})", key)]
    return {"".join(choice) for choice in product(*parts)}


def documented() -> set[str]:
    """Return every key that the page has a row for, without the table of the columns."""
    rows = re.findall(r"^\| `([^`]+)` \|", DOCS, re.MULTILINE)
    return set().union(*map(expanded, rows))


def keys_of(value: Any, prefix: str = "") -> set[str]:
    """Return the dotted keys of a JSON object; elements of lists are `[]`."""
    found = set()
    for key, inner in value.items():
        path = prefix + key
        found.add(path)
        if isinstance(inner, dict) and path not in FREE:
            found |= keys_of(inner, f"{path}.")
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            found |= set().union(*(keys_of(one, f"{path}[].") for one in inner))
    return found


def as_json(run: RunResult) -> Any:
    return json.loads(make_report(run).model_dump_json())


def test_every_key_is_documented_and_every_documented_key_is_there() -> None:
    keys = keys_of(as_json(with_trim(make_run()))) | keys_of(as_json(failed_run()))
    keys |= keys_of(json.loads(make_report(make_run(), devices=[device_report()]).model_dump_json()))
    assert keys - documented() == set(), "docs/report.md does not say what these are"
    assert documented() - keys == set(), "docs/report.md promises these"


def test_a_trimmed_vocabulary_is_told_of() -> None:
    run = with_trim(make_run())
    stage = next(one for one in make_report(run).stages if one.stage == "trim")
    assert stage.foreign is not None
    assert stage.foreign.n == 2000
    page = render_html(make_report(run))
    for figure in (
        "30\N{NARROW NO-BREAK SPACE}522 \N{RIGHTWARDS ARROW} 12\N{NARROW NO-BREAK SPACE}193",
        "99.80 %",
        "41 of 1500",
        "Same answers elsewhere, %",
        "98.5",
    ):
        assert figure in page
    assert "Same answers elsewhere" not in render_html(make_report(make_run()))


def test_a_narrower_stream_is_told_of() -> None:
    run = make_run()
    told = {"hidden_size": {"before": 384, "after": 320, "measured_speedup": 1.17}}
    artifact = run.stages[1].artifact.model_copy(update={"details": told})
    narrow = run.stages[1].model_copy(update={"artifact": artifact})
    page = render_html(make_report(run.model_copy(update={"stages": [run.stages[0], narrow, *run.stages[2:]]})))
    for figure in ("384 \N{RIGHTWARDS ARROW} 320", "1.17"):
        assert figure in page
    assert "Channels of the residual stream" not in render_html(make_report(run))


@pytest.mark.parametrize("times", [{"all": 1.25, "words": 2.5, "int8": 5.0}, {"all": None, "int8": "long"}])
def test_what_blocks_were_chosen_by_is_told(times: dict[str, object]) -> None:
    run = make_run()
    told = {"blocks": {"block_size": 64, "chosen": "words", "word_ms": times}}
    artifact = run.stages[1].artifact.model_copy(update={"details": told})
    timed = run.stages[1].model_copy(update={"artifact": artifact})
    page = render_html(make_report(run.model_copy(update={"stages": [run.stages[0], timed, *run.stages[2:]]})))
    assert "Weights in blocks" in page
    for ms in times.values():
        assert not isinstance(ms, float) or f"{ms:.3f}" in page
    assert "Weights in blocks" not in render_html(make_report(run))


@pytest.mark.parametrize("run", [make_run(stages=1, timed=False, test=0), make_run(stages=2)], ids=["least", "two"])
def test_a_key_without_a_figure_is_null_and_not_left_out(run: RunResult) -> None:
    whole, least = as_json(make_run()), as_json(run)
    assert whole.keys() == least.keys()
    assert whole["headline"].keys() == least["headline"].keys()
    assert {frozenset(stage) for stage in whole["stages"] + least["stages"]} == {frozenset(whole["stages"][0])}


def test_the_details_of_verdicts_are_documented() -> None:
    rows = dict(re.findall(r"^\| (accuracy|speed|size|agreement) \| (.*) \|$", DOCS, re.MULTILINE))
    for stage in with_trim(make_run()).stages:
        for verdict in stage.verdicts:
            names = set(re.findall(r"`(\w+)`", rows[verdict.gate])) - {"max_bytes"}
            assert set(verdict.details) == names, verdict.gate


def test_every_column_of_the_table_names_a_key() -> None:
    table = DOCS.partition("## Where the figures")[2].partition("\n## ")[0]
    keys = set().union(*(expanded(key) for key in re.findall(r"`(stages\[\][^`]+)`", table)))
    assert keys <= keys_of(as_json(make_run()))
    assert len(keys) == 11


def test_figures_are_those_of_the_measurements() -> None:
    run = make_run()
    report, teacher, last = make_report(run), run.stages[0], run.stages[-1]
    told = report.stages[-1]
    assert (told.parameters, told.bytes) == (last.validation.parameters, last.validation.bytes)
    assert told.size_ratio == teacher.validation.bytes / last.validation.bytes
    own, baseline = last.validation.latency, last.validation.baseline_latency
    assert own is not None and baseline is not None and told.latency is not None and told.speedup is not None
    assert (told.latency.p50_ms, told.latency.teacher_p95_ms) == (own.p50_ms, baseline.p95_ms)
    speedup = ratio_interval(baseline.rounds, own.rounds, sides=2)
    assert (told.speedup.estimate, told.speedup.low, told.speedup.high) == (speedup.estimate, speedup.low, speedup.high)
    gains = np.subtract(last.validation.scores, teacher.validation.scores)
    tango = tango_interval(len(gains), int((gains < 0).sum()), int((gains > 0).sum()))
    difference = told.difference.validation
    assert difference is not None
    assert (difference.estimate, difference.low, difference.high) == (tango.estimate, tango.low, tango.high)
    same = sum(map(int.__eq__, teacher.validation.predictions, last.validation.predictions))
    agreement = told.agreement.validation
    assert agreement is not None
    assert agreement.low == wilson_interval(same, len(gains)).low
    assert report.stages[0].difference.validation is None and report.stages[0].passed is None


def test_the_headline_is_told_on_the_test_data_where_there_is_any() -> None:
    with_test, without = make_report(make_run()), make_report(make_run(test=0))
    assert (with_test.headline.data, with_test.headline.accuracy) == ("test", with_test.stages[-1].accuracy.test)
    assert (without.headline.data, without.headline.accuracy.n) == ("validation", 1500)
    assert without.headline.difference == without.stages[-1].difference.validation


def test_a_failed_gate_is_told_everywhere() -> None:
    report = make_report(failed_run())
    assert not report.passed
    assert [stage.passed for stage in report.stages] == [None, True, False]
    assert [(one.stage, one.gate) for one in report.headline.failed] == [("prune", "accuracy"), ("prune", "speed")]
    page = Page(render_html(report))
    assert "Failed at the accuracy gate after prune" in page.text
    assert "Try a milder setting." in page.text


def test_a_smaller_value_may_be_the_better_one() -> None:
    draws = np.random.default_rng(3)
    run = make_run(stages=2, test=0)
    for k, worse in enumerate((0.0, 0.2)):
        scores = [float(x) for x in draws.normal(1.0 + worse, 0.1, 1500)]
        loss: dict[str, Any] = {"metric": "loss", "higher_is_better": False, "paired_test": "bootstrap"}
        mean = float(np.mean(scores))
        run = changed(run, k, validation={**loss, "scores": scores, "estimate": mean, "low": mean, "high": mean})
    report = make_report(run)
    assert report.headline.difference is not None and report.headline.difference.estimate == pytest.approx(
        -0.2, abs=0.02
    )
    page = Page(render_html(report))
    assert "Loss on validation" in page.text and "Accuracy on validation" not in page.text


def test_confusion_counts_every_labelled_example_once() -> None:
    run = make_run(classes=3, stages=2)
    test = run.stages[0].test
    assert isinstance(test, Measurement)
    unlabelled = [-1, *test.targets[1:]]
    confusion = make_report(changed(run, 0, test={"targets": unlabelled})).confusion
    assert confusion is not None
    assert sum(map(sum, confusion.teacher)) == 871
    assert sum(map(sum, confusion.candidate)) == 872
    whole = make_report(run).confusion
    assert whole is not None
    right = sum(whole.teacher[k][k] for k in range(3)) / 872
    assert right == pytest.approx(test.estimate)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BadInput, match="different examples"):
        make_report(changed(make_run(stages=2), 1, validation={"data": "other"}))
    with pytest.raises(BadInput, match="no stage"):
        make_report(make_run().model_copy(update={"stages": []}))


def test_the_file_is_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(stages=3)
    Ledger(tmp_path).finish(run)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(tmp_path), "--json"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert printed == (tmp_path / "report.json").read_text(encoding="utf-8")
    assert Report.model_validate_json(printed) == make_report(run)
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).elements("h1")[0].text == "sst2"


def labelled(run: RunResult, labels: list[str]) -> RunResult:
    return run.model_copy(update={"labels": labels})


def without(run: RunResult, stage: str) -> RunResult:
    return run.model_copy(update={"stages": [one for one in run.stages if one.stage != stage]})


WRITES = [LayerRecord(heads=4, head_size=8, ffn=32), LayerRecord(heads=3, head_size=8, ffn=24, cross_heads=2)]
RUNS = {
    "whole": make_run(),
    "no latency": make_run(timed=False),
    "no test": make_run(test=0),
    "neither": make_run(timed=False, test=0),
    "failed": failed_run(),
    "no prune": without(make_run(), "prune"),
    "teacher only": make_run(stages=1),
    "a label missing": labelled(make_run(classes=3), ["negative", "neutral"]),
    "one class": make_run(classes=1),
    "eight classes": make_run(classes=8, n=90_000, test=0),
    "150 classes": make_run(classes=150, n=3000, test=0, labels=[f"intent_{k}_of_many_words" for k in range(150)]),
    "no classes": changed(make_run(stages=1, test=0), 0, validation={"predictions": [], "targets": []}),
    "no data": make_run(data=[]),
    "no layers": changed(make_run(stages=1), 0, layers=[]),
    "wide layers": changed(
        make_run(stages=2), 0, layers=[make_run().stages[0].layers[0].model_copy(update={"heads": 64})]
    ),
    "what writes": changed(make_run(stages=2), 0, layers=WRITES),
    "two examples": make_run(n=2, test=0),
    "nothing shipped": changed(make_run(stages=2), 1, validation={"bytes": 0}),
}
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())


@runs
def test_the_page_is_whole_and_every_mark_lies_in_its_drawing(run: RunResult) -> None:
    page = Page(render_html(make_report(run)))
    assert len(page.elements("h1")) == 1
    drawings = page.elements("svg")
    assert [stray for drawing in drawings for stray in strays(drawing)] == []
    assert all(drawing.attributes["aria-label"] for drawing in drawings)
    for table in page.elements("table"):
        widths = {len(row.children) for row in table.all("tr")}
        assert len(widths) == 1, table.attributes["aria-label"]
    assert not [word for word in ("None", "nan", "inf") if re.search(rf"\b{word}\b", page.text)]


@runs
def test_nothing_is_fetched_and_nothing_is_run(run: RunResult) -> None:
    page = Page(render_html(make_report(run)))
    tags = {element.tag for element in page.root.all("html")[0].all("meta")} | set(tags_of(page))
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "a"}
    style = page.elements("style")[0].text
    assert not re.search(r"url\(|@import|https?:|expression\(", style)
    for element in elements_of(page):
        assert not {name for name in element.attributes if name.startswith("on")}
        assert not element.attributes.keys() & {"src", "href", "xlink:href", "srcset", "action"}
        assert "url(" not in element.attributes.get("style", "")
    policies = [meta.attributes for meta in page.elements("meta") if "http-equiv" in meta.attributes]
    assert [policy["content"] for policy in policies] == ["default-src 'none'; style-src 'unsafe-inline'"]


def elements_of(page: Page) -> list[Any]:
    """Return every element of a page."""
    found, left = [], list(page.root.children)
    while left:
        element = left.pop()
        found.append(element)
        left += element.children
    return found


def tags_of(page: Page) -> list[str]:
    """Return the kinds of all elements."""
    return [element.tag for element in elements_of(page)]


def test_columns_without_figures_are_left_out() -> None:
    def heads(run: RunResult) -> list[str]:
        table = Page(render_html(make_report(run))).elements("table")[0]
        return [head.whole.replace("\N{NO-BREAK SPACE}", " ") for head in table.all("tr")[0].children]

    assert "p50, ms" in heads(make_run()) and "Accuracy on test, %" in heads(make_run())
    assert not {"p50, ms", "p95, ms"} & set(heads(make_run(timed=False)))
    assert "Accuracy on test, %" not in heads(make_run(test=0))
    assert "Macro F1 on test" in heads(make_run()) and "Macro F1 on validation" in heads(make_run(test=0))
    run = make_run(test=0)
    bare = [
        stage.model_copy(update={"validation": stage.validation.model_copy(update={"besides": []})})
        for stage in run.stages
    ]
    assert not any("Macro F1" in head for head in heads(run.model_copy(update={"stages": bare})))
    assert "Gates" not in heads(make_run(stages=1))


@pytest.mark.parametrize(("classes", "named", "table"), [(2, True, False), (20, True, True), (150, False, True)])
def test_confusion_stays_readable(classes: int, named: bool, table: bool) -> None:  # noqa: FBT001
    labels = [f"kind-{k}" for k in range(classes)]
    source = render_html(make_report(make_run(classes=classes, n=3000, test=0, labels=labels)))
    page = Page(source)
    drawings = [drawing for drawing in page.elements("svg") if "confusion" in drawing.classes]
    assert len(drawings) == 2
    for drawing in drawings:
        names = [mark.text for mark in drawing.all("text") if mark.text.startswith("kind-")]
        assert (names.count("kind-0"), names.count("kind-1")) == ((2, 2) if named else (0, 0))
        assert len(drawing.all("rect")) + len(drawing.all("path")) < 100
    found = [one for one in page.elements("table") if one.attributes["aria-label"] == "Largest confusions"]
    assert bool(found) is table
    if found:
        counts = [int(row.children[2].whole) for row in found[0].all("tr")[1:]]
        assert counts == sorted(counts, reverse=True) and 0 < len(counts) <= 12
    assert len(source) < 200_000


@pytest.mark.parametrize("kind", ["wide", "narrow"])
def test_labels_of_the_path_do_not_lie_on_one_another(kind: str) -> None:
    for run in (make_run(), make_run(timed=False), failed_run()):
        page = Page(render_html(make_report(run)))
        figure = next(one for one in page.elements("figure") if kind in one.classes)
        texts = [mark for mark in figure.all("text") if mark.classes & {"name", "figures"}]
        boxes = []
        for mark in texts:
            x, y, half = float(mark.attributes["x"]), float(mark.attributes["y"]), 2.9 * len(mark.text)
            boxes.append((x - half, y - 10, x + half, y + 2))
        assert len(boxes) == 2 * len(run.stages)
        for one, two in combinations(boxes, 2):
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


def test_what_stages_tell_is_drawn() -> None:
    page = Page(render_html(make_report(make_run())))
    tables = {table.attributes["aria-label"]: table for table in page.elements("table")}
    rows = tables["Sensitivity, quantize"].all("tr")
    assert [cell.whole for cell in rows[0].children][:2] == ["Module", "KL, 10\u207b\u2076 nats"]
    assert [cell.whole for cell in rows[1].children] == ["layers.0.attention.query", "4.000", "", "1.000", "0.0000"]
    widths = [cell.attributes["style"] for row in rows[1:3] for cell in row.all("span")]
    assert widths == ["width:100.0%", "width:50.0%"]
    rounds = [[cell.whole for cell in row.children] for row in tables["Pruning rounds, prune"].all("tr")[1:]]
    assert rounds == [
        ["1", "27", "2\N{NARROW NO-BREAK SPACE}688", "1.41\N{MULTIPLICATION SIGN}", "\N{EM DASH}", "0.012"],
        [
            "2",
            "23",
            "1\N{NARROW NO-BREAK SPACE}920",
            "1.83\N{MULTIPLICATION SIGN}",
            "1.84\N{MULTIPLICATION SIGN}",
            "0.031",
        ],
    ]
    curves = [drawing for drawing in page.elements("svg") if "curve-drawing" in drawing.classes]
    assert len(curves) == 6  # two losses and the score, of two stages
    kept = [drawing.attributes["aria-label"] for drawing in page.elements("svg") if "layers" in drawing.classes]
    assert kept[-1] == "prune. layer 1: 8 heads, FFN 832; layer 2: 6 heads, FFN 640; layer 3: 9 heads, FFN 448."


def test_a_pruning_by_weights_tells_weights() -> None:
    rounds = [{"heads": [9, 8], "ffn": [64, 64], "predicted_sparsity": 0.37, "lost_importance": 2.5}]
    page = Page(render_html(make_report(changed(make_run(stages=3), 2, artifact={"details": {"rounds": rounds}}))))
    (told,) = [one for one in page.elements("table") if one.attributes["aria-label"] == "Pruning rounds, prune"]
    header, row = ([cell.whole for cell in line.children] for line in told.all("tr"))
    assert header == ["Round", "Heads left", "FFN neurons left", "Weights removed", "Importance lost"]
    assert row == ["1", "17", "128", "37.0 %", "2.5"]


def test_heads_that_read_an_encoder_are_drawn_and_counted_apart() -> None:
    rounds = [{"heads": [4], "ffn": [32], "decoder_heads": [3], "cross_heads": [2], "decoder_ffn": [24]}]
    run = changed(make_run(stages=1), 0, layers=WRITES, artifact={"details": {"rounds": rounds}})
    page = Page(render_html(make_report(run)))
    (drawing,) = [one for one in page.elements("svg") if "layers" in one.classes]
    told = "layer 1: 4 heads, FFN 32; layer 2: 3 heads and 2 that read the encoder, FFN 24."
    assert drawing.attributes["aria-label"].endswith(told)
    assert [one.whole for one in drawing.all("text")].count("+") == 1
    (table,) = [one for one in page.elements("table") if one.attributes["aria-label"].startswith("Pruning rounds")]
    assert [cell.whole for cell in table.all("tr")[1].children] == ["1", "9", "56"]


@pytest.mark.parametrize(
    "details",
    [
        {
            "sensitivity": [
                {"name": "a", "kl": float("nan"), "mse": float("inf")},
                {"name": "b", "kl": 1e-9, "mse": None},
            ]
        },
        {"sensitivity": [{"name": "a", "kl": 0.0}, 7, None, {"kl": "much"}]},
        {"sensitivity": {"a": 1}, "rounds": 3, "training": [1, 2]},
        {"rounds": [{"heads": None, "ffn": "wide", "predicted_speedup": float("nan")}]},
        {"training": {"points": [{"step": 1, "score": float("nan")}, {"step": 2, "losses": {"kl": float("inf")}}, 4]}},
        {"training": {"points": [{"step": k, "score": 0.5} for k in range(3)]}},
        {"training": {"points": [{"step": k, "score": [0.5, float("nan"), 0.6][k]} for k in range(3)]}},
    ],
)
def test_details_may_be_anything(details: dict[str, Any]) -> None:
    report = make_report(changed(make_run(stages=2), 1, artifact={"details": details}))
    page = Page(render_html(report))
    assert [stray for drawing in page.elements("svg") for stray in strays(drawing)] == []
    assert not re.search(r"\b(nan|inf)\b", page.text)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    json.loads(report.model_dump_json(), parse_constant=refuse)


def test_a_report_is_the_same_each_time(tmp_path: Path) -> None:
    assert write_report(make_run(), tmp_path) == write_report(make_run(), tmp_path)
    assert render_html(make_report(make_run())) == (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_attempt_after_a_failed_gate_is_told() -> None:
    stage: StageResult = make_run().stages[2]
    assert details_of(stage.stage)
    assert "attempt 2" in Page(render_html(make_report(changed(make_run(), 2, attempt=1)))).text


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (wording.count(22_713_602), "22.7 M"),
        (wording.count(999), "999"),
        (wording.count(999_600), "1.00 M"),
        (wording.figures(0.99961), "1.00"),
        (wording.figures(0.0123), "0.012"),
        (wording.figures(1234.5), "1234"),
        (wording.grouped(14580), "14\N{NARROW NO-BREAK SPACE}580"),
        (wording.times(0.998), "1.00"),
        (wording.times(9.999), "10.0"),
        (wording.signed(-0.0001, 2), "0.00"),
        (wording.signed(-1.5, 1), "\N{MINUS SIGN}1.5"),
        (wording.points(0.0058, "proportions"), "+0.58"),
        (wording.points(-0.0058, "bootstrap"), "\N{MINUS SIGN}0.0058"),
        (wording.duration(3.21), "3.2 s"),
        (wording.duration(59.7), "1 min 00 s"),
        (wording.duration(3900), "1 h 05 min"),
        (wording.moment("2026-01-02T05:04:05+02:00"), "2026-01-02 03:04 UTC"),
        (wording.moment("2026-01-02T03:04:05Z"), "2026-01-02 03:04 UTC"),
        (wording.moment("some day"), "some day"),
        (
            wording.accuracy_interval(Accuracy(n=9, estimate=0.5, low=0.25, high=1.0), "proportions"),
            "25.0\N{EN DASH}100",
        ),
    ],
)
def test_figures_are_written_for_people(told: str, expected: str) -> None:
    assert told == expected


def searched() -> RunResult:
    """Return a search of four points, of which the third is chosen and the last failed."""
    run = make_run()
    points = [
        stage.model_copy(
            update={
                "stage": f"level-{number}",
                "verdicts": [one.model_copy(update={"stage": f"level-{number}"}) for one in stage.verdicts],
            }
        )
        for number, stage in enumerate(run.stages[1:], start=1)
    ]
    failed = [one.model_copy(update={"passed": False}) for one in points[3].verdicts]
    points[3] = points[3].model_copy(update={"verdicts": failed})
    found = {"chosen": "level-3", "notes": ["level-4 loses more than 1 points"], "passed": True}
    return run.model_copy(update={"stages": [run.stages[0], *points], **found})


def test_a_search_is_told_by_its_chosen_point() -> None:
    run = searched()
    report = make_report(run)
    assert report.chosen == report.headline.stage == "level-3"
    assert report.headline.failed == []
    assert report.headline.size_ratio == report.stages[3].size_ratio
    text = render_html(report)
    assert "level-3 is chosen" in text
    assert "The search ended: level-4 loses more than 1 points" in text
    assert f"{wording.megabytes(report.stages[3].bytes)} MB" in text
    assert "Accuracy, level-4" in text
    assert text.count('class="frontier"') == 2
    assert 'class="arrow"' not in text


def test_the_frontier_leaves_out_what_another_point_beats() -> None:
    run = searched()
    worse = run.stages[2].validation.model_copy(update={"estimate": 0.5, "low": 0.4, "high": 0.6})
    spoilt = changed(run, 2, validation=worse, test=None)
    spoilt = spoilt.model_copy(update={"stages": [one.model_copy(update={"test": None}) for one in spoilt.stages]})
    corners = [
        len(re.findall("H", re.findall(r'd="(M[^"]*)" class="frontier"', render_html(make_report(one)))[0]))
        for one in (run, spoilt)
    ]
    assert corners[1] < len(run.stages) - 1
    assert corners[1] <= corners[0]
