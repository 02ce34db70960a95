"""The page of a bundle: what it is made of, what it is told, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.examples import random_rows, tiny_checkpoint, tiny_context
from support.images import image_checkpoint
from support.vocabularies import word_piece_checkpoint
from support.web_page import Page as Parsed

import export.page
from compress.cli import main
from compress.settings import ExportSettings
from compress.stages import EXPORT
from export.bundle import Bundle
from export.difficult import DIFFICULT
from export.manifest import is_of_page
from export.page import Given, Page, check_page, make_page
from export.verify import verify_bundle
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.encoded import Encoded
from models.errors import BadInput, Mismatch
from models.kinds import Reads
from models.shape import HeadShape
from models.task import Shows
from models.tasks import TASKS, task_named
from models.token_cache import encode_table

SITE = Path(export.page.__file__).with_name("site")
INDEX = (SITE / "index.html").read_text(encoding="utf-8")
SCRIPTS = {file.name: file.read_text(encoding="utf-8") for file in SITE.glob("*.js")}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for npm, and for a Node.js that reads every text as Python does; return the latter's file."""
    given = {
        name: name.encode()
        for package in (export.page.RUNTIME, export.page.TOKENIZERS)
        for name in package.files.values()
    }
    monkeypatch.setattr(
        export.page, "package_files", lambda package, cache: {name: given[name] for name in package.files.values()}
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("node", "npm"):
        (programs / name).write_text("#!/bin/sh\necho '[]'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return programs / "node"


def page(checkpoint: Checkpoint, task: str, *given: Given, tmp_path: Path, shown: int = 8) -> Page:
    return make_page(
        checkpoint.shape, checkpoint.reader, task_named(task), given=given, shown=shown, cache=tmp_path / "cache"
    )


def settings_of(made: Page) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(made.files["web/page.json"])
    return settings


def test_a_page_is_told_of_the_model(offline: Path, tmp_path: Path) -> None:
    checkpoint = word_piece_checkpoint()
    made = page(checkpoint, "text-classification", Given("w2 w3", None), Given("w4", None), tmp_path=tmp_path, shown=1)
    told = settings_of(made)
    assert (told["shows"], told["fields"], told["labels"], told["longest"]) == ("class", 1, ["a", "b", "c"], 40)
    cls, sep = (checkpoint.tokenizing.plain([name])[0][0] for name in ("[CLS]", "[SEP]"))
    assert told["single"] == [{"id": cls, "kind": 0}, {"text": 0, "kind": 0}, {"id": sep, "kind": 0}]
    (one,) = checkpoint.tokenizing.encode(["w2 w3"], max_length=40)
    assert told["texts"][0] == {"text": "w2 w3", "windows": [{"ids": one.ids, "kinds": one.token_type_ids}]}
    assert [text["text"] for text in told["texts"][1:-1]] == list(DIFFICULT)
    (too_long,) = told["texts"][-1]["windows"]
    assert len(too_long["ids"]) == 40
    assert (made.texts, made.otherwise) == (2 + len(DIFFICULT) + 1, [])


def test_a_page_of_pairs_has_two_fields(offline: Path, tmp_path: Path) -> None:
    told = settings_of(page(word_piece_checkpoint(), "text-classification", Given("w2", "w3"), tmp_path=tmp_path))
    assert told["fields"] == 2
    assert [one.get("text") for one in told["pair"] if "text" in one] == [0, 1]
    assert all("pair" in text for text in told["texts"])
    likened = tiny_checkpoint(head=HeadShape((), task="sentence-embedding", reads=Reads.MEAN, width=32))
    told = settings_of(page(likened, "sentence-embedding", Given("w2", None), tmp_path=tmp_path))
    assert (told["shows"], told["fields"]) == ("likeness", 2)


def test_a_text_that_is_read_otherwise_refuses_a_page(offline: Path, tmp_path: Path) -> None:
    offline.write_text("#!/bin/sh\necho '[1, 2]'\n")
    given = [Given(text, None) for text in ("w2", "w3", "w4")]
    with pytest.raises(Mismatch, match=r"2 of 3 texts have other tokens in JavaScript, such as 'w3'"):
        page(word_piece_checkpoint(), "text-classification", *given, tmp_path=tmp_path)


def test_a_difficult_text_that_is_read_otherwise_is_told(offline: Path, tmp_path: Path) -> None:
    offline.write_text("#!/bin/sh\necho '[1]'\n")
    made = page(word_piece_checkpoint(), "text-classification", Given("w2", None), tmp_path=tmp_path)
    assert made.otherwise == [DIFFICULT[0]]
    assert DIFFICULT[0] not in [text["text"] for text in settings_of(made)["texts"]]


def test_a_tokenizer_that_javascript_does_not_know_refuses_a_page(offline: Path, tmp_path: Path) -> None:
    offline.write_text("#!/bin/sh\necho 'Error: Unknown tokenizer' >&2\nexit 1\n")
    with pytest.raises(Mismatch, match="does not read with this tokenizer .Error: Unknown tokenizer"):
        page(word_piece_checkpoint(), "text-classification", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("checkpoint", "task", "problem"),
    [
        (lambda: image_checkpoint(), "image-classification", "this model reads images"),
        (lambda: tiny_checkpoint(head=None), None, "does not show the answers of hidden states"),
        (lambda: tiny_checkpoint(), "translation", "does not show the answers of translation"),
    ],
)
def test_what_a_page_does_not_show_is_refused(checkpoint: Any, task: str | None, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        check_page(checkpoint().shape, None if task is None else task_named(task))


def test_a_bundle_holds_its_page(offline: Path, tmp_path: Path) -> None:
    checkpoint = word_piece_checkpoint()
    context = tiny_context(tmp_path, checkpoint, validation=rows_of(checkpoint, tmp_path))
    made = EXPORT.run(checkpoint, ExportSettings(target="web", golden=2), context)
    assert made.details["page"] == {"texts": 3 + len(DIFFICULT) + 1, "read_otherwise": []}
    (tmp_path / "bundle").mkdir()
    made.product.save(tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    files = set(bundle.manifest.files)
    assert (bundle.manifest.target, bundle.manifest.model) == ("web", "model.onnx")
    assert verify_bundle(tmp_path / "bundle").files == len(files)
    assert {name for name in files if is_of_page(name)} == {"index.html", *(f"web/{name}" for name in needed())}
    assert bundle.bytes < sum(entry.bytes for entry in bundle.manifest.files.values())
    assert "`python -m http.server`" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    texts = json.loads((tmp_path / "bundle" / "web" / "page.json").read_text(encoding="utf-8"))["texts"]
    assert [one["text"] for one in texts[:2]] == ["w2 w3", "w5"]
    (tmp_path / "copy").mkdir()
    bundle.save(tmp_path / "copy")
    verify_bundle(tmp_path / "copy")


def test_a_bundle_without_texts_still_has_the_difficult_ones(offline: Path, tmp_path: Path) -> None:
    checkpoint = word_piece_checkpoint()
    context = tiny_context(tmp_path, checkpoint, validation=random_rows(3))
    made = EXPORT.run(checkpoint, ExportSettings(target="web"), context)
    assert made.details["page"]["texts"] == len(DIFFICULT) + 1


def rows_of(checkpoint: Checkpoint, folder: Path) -> Encoded:
    (folder / "rows.csv").write_text("text,label\nw2 w3,a\nw4,b\nw5,c\n")
    task = task_named("text-classification")
    table = task.read(Wanted(str(folder / "rows.csv")), None)
    targets = task.targets(table, checkpoint.shape.labels)
    return encode_table(table, checkpoint.tokenizing, targets, max_length=40, cache=folder)


def needed() -> set[str]:
    """Return every file that the page and its scripts ask for, and what goes with them."""
    asked = {name for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.-]+)"', text)}
    asked |= {name for text in SCRIPTS.values() for name in re.findall(r'"web/([\w.-]+)"', text)}
    asked |= set(re.findall(r'(?:href|src)="web/([\w.-]+)"', INDEX))
    return asked | {"onnxruntime.LICENSE.txt", "tokenizers.LICENSE.txt"}


def test_without_npm_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    tiny_checkpoint().save(tmp_path / "model")
    (tmp_path / "rows.csv").write_text("text,label\nw2 w3,a\nw4,b\nw5,c\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["export", str(tmp_path / "model"), "--teacher", str(tmp_path / "model"), "--target", "web"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--validation", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "bundle")])
    assert stop.value.code == 2
    assert "made with npm, which is not found" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bundle").exists()


def test_images_are_refused_before_anything_is_done(tmp_path: Path, offline: Path) -> None:
    checkpoint = image_checkpoint()
    context = replace(
        tiny_context(tmp_path, checkpoint, validation=random_rows(3)), task=task_named("image-classification")
    )
    with pytest.raises(BadInput, match=r"export.target: web: a page reads texts, and this model reads images"):
        EXPORT.run(checkpoint, ExportSettings(target="web"), context)


# What stands in the page's own files.


def test_the_page_asks_nobody_else() -> None:
    parsed = Parsed(INDEX)
    (policy,) = (
        one.attributes["content"]
        for one in parsed.elements("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert rules["connect-src"] == "'self'"
    assert not parsed.elements("style")
    assert all("src" in script.attributes for script in parsed.elements("script"))
    for text in (INDEX, *SCRIPTS.values(), (SITE / "style.css").read_text(encoding="utf-8")):
        assert not re.search(r"https?://|url\(|@import|\"/", text)


def test_texts_never_become_markup() -> None:
    for text in SCRIPTS.values():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


def test_every_field_has_a_label_and_every_asked_element_is_there() -> None:
    parsed = Parsed(INDEX)
    labelled = {one.attributes["for"] for one in parsed.elements("label")}
    assert labelled == {one.attributes["id"] for one in parsed.elements("textarea")}
    ids = set(re.findall(r'id="([\w-]+)"', INDEX))
    script = SCRIPTS["page.js"]
    assert set(re.findall(r'element\("([\w-]+)"\)', script)) <= ids
    assert {f"test-{name}" for name in re.findall(r'checked\("(\w+)"', script)} <= ids
    assert {
        f"{part}-{place}" for part in re.findall(r"element\(`(\w+)-\$\{place\}`\)", script) for place in (0, 1)
    } <= ids


def test_a_page_shows_what_the_tasks_say() -> None:
    rows = re.search(r"const ANSWERS = \{(.*?)\n\};", SCRIPTS["answers.js"], re.DOTALL)
    fields = re.search(r"const FIELDS = \{(.*?)\n\};", SCRIPTS["page.js"], re.DOTALL)
    assert rows is not None
    assert fields is not None
    shown = {task.shows.value for task in TASKS} - {Shows.NOTHING.value}
    assert shown == {kind.value for kind in Shows} - {Shows.NOTHING.value}
    for found in (rows, fields):
        assert set(re.findall(r"^  (\w+): ", found[1], re.MULTILINE)) == shown
