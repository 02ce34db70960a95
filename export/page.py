"""The page of a bundle for browsers: its files, and the proof that it reads texts as Python does."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from export.difficult import DIFFICULT
from export.manifest import PAGE_FILE, PAGE_FOLDER
from export.npm import RUNTIME, TOKENIZERS, WHERE, command, package_files
from models.errors import BadInput, Mismatch
from models.reading import Reader, tokenizer_of
from models.shape import ModelShape
from models.task import Shows, Task
from models.tokenizing import Encoding, Tokenizing

SETTINGS_FILE: Final = "page.json"
_SITE: Final = Path(__file__).with_name("site")
_OURS: Final = (
    "answers.js",
    "model.js",
    "page.js",
    "reading.js",
    "selftest.js",
    "style.css",
    "onnxruntime.LICENSE.txt",
)
_COMPARE: Final = "compare.js"
_PLACED: Final = (Shows.SPANS, Shows.EXCERPT)
_SECONDS: Final = 600
_LONGEST_TRIED: Final = 4096  # tokens: what is longer would take more of the bundle than the model


class Given(NamedTuple):
    """A text as somebody types it, and its pair where the model reads two."""

    text: str
    pair: str | None


@final
@dataclass(frozen=True, slots=True)
class Page:
    """The `files` of a page by their names in the bundle, how many `texts` were read as in Python, and those difficult
    ones that were read `otherwise`.
    """

    files: Mapping[str, bytes]
    texts: int
    otherwise: Sequence[str]


def check_page(shape: ModelShape, task: Task | None) -> None:
    """Raise BadInput where no page is made for such a model."""
    if shape.image is not None:
        problem = "a page reads texts, and this model reads images"
    elif task is None or task.shows is Shows.NOTHING:
        problem = f"a page does not show the answers of {'hidden states' if task is None else task.name}"
    else:
        return
    raise BadInput(problem, where=WHERE, fix="Use --target cpu, and the bundle in an application of your own.")


def prepare_page(shape: ModelShape, task: Task | None, cache: Path) -> dict[str, bytes]:
    """Return what a page runs on, fetched where the cache does not hold it.

    Raises:
        BadInput: no page is made for such a model, or npm or Node.js is missing or does not give what is needed.
        BadFile: npm gives something else than what is pinned.
    """
    check_page(shape, task)
    fetched = package_files(RUNTIME, cache) | package_files(TOKENIZERS, cache)
    command("node")
    return fetched


def make_page(
    shape: ModelShape, reader: Reader, task: Task, *, given: Sequence[Given], shown: int, cache: Path
) -> Page:
    """Return the page for a model. It reads the texts that are `given`, and difficult ones, in Node.js as in Python;
    the first `shown` of the former and all of the latter are read again wherever it is opened.

    Raises:
        BadInput, BadFile: as `prepare_page` raises.
        Mismatch: a given text has other tokens in JavaScript.
    """
    fetched = prepare_page(shape, task, cache)
    tokenizing = tokenizer_of(reader, wanted_by=WHERE)
    own = {name: (_SITE / name).read_bytes() for name in _OURS}
    paired = task.shared > 0 or any(one.pair is not None for one in given)
    told = _told(shape, tokenizing, task, paired=paired)
    difficult = _difficult(told["longest"], paired=paired)
    read = [_read(one, tokenizing, told) for one in (*given, *difficult)]
    wrong = _wrong(own | fetched, tokenizing, told, read)
    refused = [read[number]["text"] for number in wrong if number < len(given)]
    if refused:
        raise Mismatch(
            f"{len(refused)} of {len(given)} texts have other tokens in JavaScript, such as {refused[0]!r}",
            where=WHERE,
            fix="A page would answer them otherwise. Use --target cpu.",
        )
    kept = [
        _shown(read[one]) for one in (*range(min(shown, len(given))), *range(len(given), len(read))) if one not in wrong
    ]
    settings = json.dumps({**told, "texts": kept}, ensure_ascii=False, separators=(",", ":")).encode()
    files = {f"{PAGE_FOLDER}/{name}": data for name, data in (own | fetched | {SETTINGS_FILE: settings}).items()}
    page = {PAGE_FILE: (_SITE / PAGE_FILE).read_bytes()}
    return Page(page | files, len(read) - len(wrong), [read[number]["text"] for number in wrong])


def _told(shape: ModelShape, tokenizing: Tokenizing, task: Task, *, paired: bool) -> dict[str, Any]:
    """Return what a page is told of the model."""
    return {
        "title": f"{task.name.replace('-', ' ').capitalize()} in the browser",
        "about": f"{shape.family}, {len(shape.layers)} layers; texts of up to {shape.usable_positions} tokens.",
        "shows": task.shows.value,
        "fields": 2 if paired or task.shows is Shows.LIKENESS else 1,
        "labels": list(shape.labels),
        "single": tokenizing.template(paired=False),
        "pair": tokenizing.template(paired=True),
        "longest": shape.usable_positions,
        "cut": "left" if tokenizing.config.get("truncation_side") == "left" else "right",
        "shared": task.shared,
        "placed": task.shows in _PLACED,
    }


def _difficult(longest: int, *, paired: bool) -> list[Given]:
    """Return texts that tokenizers take for different ones, and one that is too long."""
    whole = " ".join(DIFFICULT)
    texts = [*DIFFICULT, *([whole * (1 + longest // 500)] if longest <= _LONGEST_TRIED else [])]
    if not paired:
        return [Given(text, None) for text in texts]
    return [Given(text, texts[number - 1]) for number, text in enumerate(texts)]


def _read(one: Given, tokenizing: Tokenizing, told: Mapping[str, Any]) -> dict[str, Any]:
    pairs = None if one.pair is None else [one.pair]
    (windows,) = tokenizing.read([one.text], pairs, max_length=told["longest"], shared=told["shared"] if pairs else 0)
    pair = {} if one.pair is None else {"pair": one.pair}
    return {"text": one.text, **pair, "windows": [_window(window, placed=told["placed"]) for window in windows]}


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a text as a page reads it again: where its tokens stand was compared here."""
    return {**one, "windows": [{name: window[name] for name in ("ids", "kinds")} for window in one["windows"]]}


def _window(window: Encoding, *, placed: bool) -> dict[str, Any]:
    numbers = {"ids": window.ids, "kinds": window.token_type_ids}
    return numbers | {"spans": window.spans, "words": window.words} if placed else numbers


def _wrong(
    files: dict[str, bytes], tokenizing: Tokenizing, told: Mapping[str, Any], read: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Return the numbers of the texts that Node.js reads otherwise with the page's own files."""
    node = command("node")
    asked = {"tokenizer": json.loads(tokenizing.json), "config": tokenizing.config, "told": told, "texts": read}
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in (
            files | {_COMPARE: (_SITE / _COMPARE).read_bytes(), "package.json": b'{"type":"module"}'}
        ).items():
            (Path(scratch) / name).write_bytes(data)
        try:
            done = subprocess.run(
                [node, _COMPARE],
                cwd=scratch,
                input=json.dumps(asked),
                capture_output=True,
                encoding="utf-8",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Mismatch(f"JavaScript read the texts for more than {_SECONDS} s", where=WHERE) from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "Error" in line), "it ended early")
        raise Mismatch(
            f"JavaScript does not read with this tokenizer ({said.strip()})", where=WHERE, fix="Use --target cpu."
        )
    numbers: list[int] = json.loads(done.stdout)
    return numbers
