"""The page in a real browser: it proves itself, answers as Python does, and trusts no text."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import Browser, browser, served
from support.examples import tiny_context
from support.networks import quantized_network
from support.vocabularies import KINDS, tokenizing_of, with_post_processor, word_piece_checkpoint

from compress.settings import ExportSettings
from compress.stages import EXPORT
from export.bundle import Bundle
from export.npm import RUNTIME, TOKENIZERS, package_files
from export.page import Given, make_page
from models.columns import Wanted
from models.errors import BadInput
from models.kinds import Int8Form, Reads
from models.new_tokenizer import train_byte_level_bpe
from models.shape import HeadShape
from models.task import Given as Asked
from models.tasks import task_named
from models.token_cache import encode_table
from models.tokenizing import Encoding, Tokenizing

pytestmark = pytest.mark.slow

MARKUP = "<img src=x onerror=document.title='taken'>"
HEADS = {
    "text-classification": HeadShape((MARKUP, "b", "c")),
    "multi-label-classification": HeadShape(("a", "b", "c"), task="multi-label-classification"),
    "text-regression": HeadShape(("points",), task="text-regression"),
    "token-classification": HeadShape(("O", "B-few", "I-few"), task="token-classification", reads=Reads.EACH),
    "question-answering": HeadShape(("start", "end"), task="question-answering", reads=Reads.EACH),
    "sentence-embedding": HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32, normalized=True),
}
ROWS = {
    "text-classification": f"sentence1,sentence2,label\nw2 w3,w4,b\nw4,w7 w8,c\nw5,w6,{MARKUP}\n",
    "multi-label-classification": "text,label\nw2 w3,a|b\nw4,b\nw5 w6 w7,\n",
    "text-regression": "text,label\nw2 w3,0.5\nw4,1\nw5 w6 w7,2\n",
    "token-classification": '{"tokens": ["w2", "w3"], "tags": ["O", "B-few"]}\n{"tokens": ["w4"], "tags": ["O"]}\n',
    "question-answering": (
        '{"question": "w9", "context": "w2 w3 w4", "answers": {"text": ["w3"], "answer_start": [3]}}\n'
        '{"question": "w9 w8", "context": "w5 w6", "answers": {"text": ["w5"], "answer_start": [0]}}\n'
    ),
    "sentence-embedding": "text,label\nw2 w3,0\nw4,1\n",
}
TEXTS = {
    "text-classification": ["w2 w3 w49 <b>w4</b>", "w11"],
    "multi-label-classification": ["w2 w30 w49"],
    "text-regression": ["w2 w30 w49"],
    "token-classification": ["w2, w30 w49 (w5) w6.w7 w8"],
    "question-answering": ["w9 w8", " ".join(f"w{2 + number % 40}" for number in range(90))],
    "sentence-embedding": ["w2 w3", "w4 w5 w6"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that holds the packages of a page; skip where npm does not give them."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    folder = tmp_path_factory.mktemp("cache")
    try:
        for package in (RUNTIME, TOKENIZERS):
            package_files(package, folder)
    except BadInput as error:
        pytest.skip(f"needs npm and a registry: {error.what}")
    return folder


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def bundle(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("text-classification", cache, tmp_path_factory.mktemp("bundle"))


def exported(name: str, cache: Path, folder: Path, *, form: Int8Form | None = Int8Form.DYNAMIC) -> Path:
    """Return a bundle of a random model for a task, in a folder within `folder`."""
    checkpoint = word_piece_checkpoint(head=HEADS[name])
    if form is not None:
        network = quantized_network(checkpoint.network(), form)
        checkpoint = replace(checkpoint, shape=network.shape).of(network)
    task = task_named(name)
    rows = folder / ("rows.csv" if not ROWS[name].startswith("{") else "rows.jsonl")
    rows.write_text(ROWS[name])
    table = task.read(Wanted(str(rows)), None)
    targets = task.targets(table, checkpoint.shape.labels)
    data = encode_table(
        table, checkpoint.tokenizing, targets, max_length=40, cache=folder / "tokens", shared=task.shared
    )
    context = replace(tiny_context(folder, checkpoint, validation=data), task=task, cache=cache)
    made = EXPORT.run(checkpoint, ExportSettings(target="web"), context)
    assert made.details["page"]["read_otherwise"] == []
    out = folder / "under" / "some where" / "bundle"
    out.mkdir(parents=True)
    made.product.save(out)
    return out


def opened(window: Browser, address: str) -> str:
    """Open a page and return how its self-test ended."""
    window.open(f"{address}/index.html")
    window.wait("document.getElementById('self-test').dataset.state != 'running'")
    state: str = window.run("return document.getElementById('self-test').dataset.state")
    return state


def asked(window: Browser, texts: list[str]) -> None:
    """Type texts and wait for the answer."""
    shown = window.run("return [...document.querySelectorAll('textarea')].filter((one) => one.offsetParent).length")
    assert shown == len(texts)
    window.run("document.getElementById('result').dataset.state = 'asked'")
    for place, text in enumerate(texts):
        window.run("document.getElementById(arguments[0]).value = arguments[1]", f"text-{place}", text)
    window.run("document.getElementById('ask').requestSubmit()")
    window.wait("document.getElementById('result').dataset.state != 'asked'")
    assert window.run("return document.getElementById('result').dataset.state") == "answered"
    assert float(window.run("return document.getElementById('took').textContent").removesuffix(" ms")) > 0


def said(window: Browser) -> Any:
    """Return what the page shows: labels with their shares, marked texts, or a number."""
    return window.run(
        """const answer = document.getElementById("answer");
        const textOf = (row, cell) => row.cells[cell].textContent;
        const rows = [...answer.querySelectorAll("tr")];
        const marks = [...answer.querySelectorAll("mark")];
        return {
          rows: rows.map((row) => [textOf(row, 0), textOf(row, 2), row.className]),
          marks: marks.map((mark) => [mark.firstChild.textContent, mark.querySelector("small")?.textContent]),
          number: answer.querySelector("strong")?.textContent,
          text: answer.textContent,
        };"""
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@pytest.mark.parametrize("name", list(HEADS))
def test_the_page_answers_as_python_does(name: str, cache: Path, window: Browser, tmp_path: Path) -> None:
    out = exported(name, cache, tmp_path)
    with served(tmp_path) as address:
        state = opened(window, f"{address}/under/some%20where/bundle")
        assert state == "passed", window.run("return document.getElementById('self-test').innerText")
        asked(window, TEXTS[name])
    found, python = said(window), Bundle.open(out)
    pairs = [TEXTS[name][1]] if name in ("text-classification", "question-answering") else None
    texts = TEXTS[name] if name == "sentence-embedding" else TEXTS[name][:1]
    first, *others = [answer.values for answer in python.predict(texts, pairs)]
    if "probabilities" in first:
        shares = first["probabilities"]
        ranked = sorted(shares, key=lambda label: -shares[label])
        named = first.get("labels", [first.get("label")])
        assert found["rows"] == [[one, percent(shares[one]), "named" if one in named else ""] for one in ranked]
    elif "spans" in first:
        assert first["spans"]
        assert found["marks"] == [[one["text"], f"{one['label']} {percent(one['score'])}"] for one in first["spans"]]
    elif "answer" in first:
        assert found["marks"] == ([[first["answer"], None]] if first["answer"] else [])
        assert found["text"] in (TEXTS[name][1], "(nothing found)")
    else:
        one, *other = [np.array(answer["embedding"]) for answer in (first, *others)] if others else [first["points"]]
        expected = float(one @ other[0]) if other else one
        assert float(found["number"]) == pytest.approx(expected, abs=2e-4)


def test_the_page_works_without_its_server_and_asks_nobody(bundle: Path, window: Browser) -> None:
    with served(bundle) as address:
        assert opened(window, address) == "passed"
        asked_for = window.run("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(one.startswith(f"{address}/") for one in asked_for)
        window.run(
            """window.refused = [];
            document.addEventListener("securitypolicyviolation", (one) => refused.push(one.effectiveDirective));
            fetch("http://example.invalid/").catch(() => {});"""
        )
        window.wait("window.refused.includes('connect-src')")
    asked(window, ["w2 w3", "w4"])
    assert len(said(window)["rows"]) == 3


def test_markup_is_shown_as_text(bundle: Path, window: Browser) -> None:
    with served(bundle) as address:
        opened(window, address)
        title = window.run("return document.title")
        asked(window, [MARKUP, MARKUP])
        assert MARKUP in [label for label, *_ in said(window)["rows"]]
        assert window.run("return document.querySelectorAll('img').length") == 0
        assert window.run("return document.title") == title


def test_a_changed_model_fails_visibly(bundle: Path, window: Browser, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    data = bytearray((tmp_path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with served(tmp_path) as address:
        assert opened(window, address) == "failed"
    shown = window.run("return document.getElementById('self-test').innerText")
    assert "Self-test failed" in shown
    assert "model.onnx does not match its digest" in shown
    assert window.run("return document.getElementById('send').disabled")


def test_other_numbers_and_other_tokens_fail_visibly(bundle: Path, window: Browser, tmp_path: Path) -> None:
    """As where a browser computes or reads something else: the digests are right, what they promise is not."""
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    golden = json.loads((tmp_path / "golden.json").read_text())
    golden["examples"][1]["logits"][0] += 1
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    page = json.loads((tmp_path / "web" / "page.json").read_text())
    page["texts"][0]["windows"][0]["ids"][1] += 1
    (tmp_path / "web" / "page.json").write_text(json.dumps(page))
    reseal(tmp_path, "golden.json", "web/page.json")
    with served(tmp_path) as address:
        assert opened(window, address) == "failed"
    states = window.run(
        "return ['files', 'answers', 'tokens'].map((name) => document.getElementById(`test-${name}`).dataset.state)"
    )
    assert states == ["passed", "failed", "failed"]


def reseal(directory: Path, *names: str) -> None:
    from models.files import sha256_file

    manifest = json.loads((directory / "manifest.json").read_text())
    for name in names:
        file = directory / name
        manifest["files"][name] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    (directory / "manifest.json").write_text(json.dumps(manifest))


# What needs Node.js alone.


def _tokenizings() -> list[Any]:
    pieces = dict.fromkeys(["a", "b", "c", "ab", "bc", "abc", "##a", "##b", "##c", "é", "東"], -1.0)
    corpus = ["naïve café and the 東京 tower", "it's 3.14, isn't it"] * 3
    made = [(kind, lambda kind=kind: with_post_processor(tokenizing_of(kind, pieces), "template")) for kind in KINDS]
    made.append(("bytes", lambda: train_byte_level_bpe(corpus, vocab_size=300, max_length=40)))
    return [pytest.param(make, id=name) for name, make in made]


@pytest.mark.parametrize("make", _tokenizings())
@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_javascript_reads_as_python_does(make: Any, task: str, cache: Path) -> None:
    tokenizing: Tokenizing = make()
    shape = replace(word_piece_checkpoint(head=HEADS[task]).shape, vocab_size=tokenizing.vocab_size)
    pair = "c ab" if task == "question-answering" else None
    given = [Given(text, pair) for text in ("abc ab  a", "zz ab é", "cab " * 60)]
    made = make_page(shape, tokenizing, task_named(task), given=given, shown=3, cache=cache)
    assert made.otherwise == []


@pytest.mark.parametrize("name", list(HEADS))
def test_javascript_answers_as_python_does(name: str, tmp_path: Path) -> None:
    """On drawn logits, for which a model need not run."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    import export.page

    site = Path(export.page.__file__).with_name("site")
    shutil.copy(site / "answers.js", tmp_path / "answers.mjs")
    task, labels, draw = task_named(name), HEADS[name].labels, np.random.default_rng(0)
    text, pair = "w2, w30 (w5) w6.w7", "w9 w2 é w8" if name == "question-answering" else None
    tokenizing = word_piece_checkpoint().tokenizing
    windows = tokenizing.read([text], [pair] if pair else None, max_length=40, shared=task.shared)[0]
    cases = [_logits(windows, labels, task.shared or name == "token-classification", draw) for _ in range(20)]
    if name == "sentence-embedding":
        cases = [[draw.normal(size=(1, 8)).astype(np.float32)] for _ in range(20)]
    script = (
        'import { answerOf } from "./answers.mjs"; import { readFileSync } from "node:fs";'
        "const { told, texts, windows, cases } = JSON.parse(readFileSync(0));"
        "const float = (logits) => Float32Array.from(logits);"
        "const read = (case_) => windows.map((window, place) => ({ window, logits: float(case_[place]) }));"
        "const answers = cases.map((case_) => answerOf(told, texts, [read(case_), read(cases[0])]));"
        "console.log(JSON.stringify(answers));"
    )
    (tmp_path / "run.mjs").write_text(script)
    asked_for = {
        "told": {"shows": task.shows.value, "labels": labels},
        "texts": [text] if pair is None else [text, pair],
        "windows": [{"spans": one.spans, "words": one.words} for one in windows],
        "cases": [[part.reshape(-1).tolist() for part in case] for case in cases],
    }
    done = subprocess.run(
        ["node", "run.mjs"], cwd=tmp_path, input=json.dumps(asked_for), capture_output=True, text=True, check=True
    )
    for logits, found in zip(cases, json.loads(done.stdout), strict=True):
        values = task.answer(logits, labels, Asked(text, pair, windows)).values
        assert simplified(found) == expected_of(values, text if pair is None else pair, cases[0])


def _logits(windows: list[Encoding], labels: tuple[str, ...], each: Any, draw: np.random.Generator) -> list[Any]:
    rows = [len(window.ids) if each else 1 for window in windows]
    return [draw.normal(size=(count, len(labels))).astype(np.float32) * 3 for count in rows]


def simplified(found: dict[str, Any]) -> Any:
    if "shares" in found:
        return {one["label"]: (round(one["share"], 5), one["named"]) for one in found["shares"]}
    if "spans" in found:
        return [
            (one["label"], found["text"][one["start"] : one["end"]], round(one.get("share", 0), 5))
            for one in found["spans"]
        ]
    return round(found["number"], 4)


def expected_of(values: Any, text: str, first: Any) -> Any:
    if "probabilities" in values:
        named = values.get("labels", [values.get("label")])
        return {label: (round(share, 5), label in named) for label, share in values["probabilities"].items()}
    if "spans" in values:
        return [(one["label"], one["text"], round(one["score"], 5)) for one in values["spans"]]
    if "answer" in values:
        return [("", values["answer"], 0)] if values["answer"] else []
    if "embedding" in values:
        one, other = np.array(values["embedding"]), first[0][0].astype(np.float64)
        return round(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)), 4)
    return round(next(iter(values.values())), 4)
