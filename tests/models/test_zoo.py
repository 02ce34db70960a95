from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from models.errors import BadFile
from models.zoo import standard_library
from models.zoo.standard_library import AREAS, MASK, MAX_TOKENS, SPLITS, Snippet, Split, split_of, tables, write_tables

TOKEN = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def built() -> dict[Split, list[Snippet]]:
    return tables()


def test_there_are_twenty_areas_and_each_is_in_every_split(built: dict[Split, list[Snippet]]) -> None:
    assert len(set(AREAS)) == len(AREAS) == 20
    for split in SPLITS:
        assert {snippet.area for snippet in built[split]} == set(AREAS)


def test_sizes_are_useful_and_no_area_drowns_the_others(built: dict[Split, list[Snippet]]) -> None:
    counts = Counter(snippet.area for snippet in built["train"])
    assert 12_000 < len(built["train"]) < 30_000
    assert min(counts.values()) >= 200
    assert max(counts.values()) <= standard_library.MAX_TRAIN_PER_AREA
    for split in ("validation", "test"):
        assert len(built[split]) > 1_000


def test_no_text_and_no_function_stands_in_two_places(built: dict[Split, list[Snippet]]) -> None:
    texts = [snippet.text for split in SPLITS for snippet in built[split]]
    assert len(set(texts)) == len(texts)
    names = {split: {snippet.qualified_name for snippet in built[split]} for split in SPLITS}
    assert not names["train"] & names["validation"]
    assert not names["train"] & names["test"]
    assert not names["validation"] & names["test"]


def test_held_out_windows_do_not_overlap(built: dict[Split, list[Snippet]]) -> None:
    assert any(snippet.overlaps for snippet in built["train"])
    assert not any(snippet.overlaps for split in ("validation", "test") for snippet in built[split])


def test_module_names_and_imports_are_masked(built: dict[Split, list[Snippet]]) -> None:
    # Not at the edges, where the `self.` of an attribute or the `://` of an address may have been cut off.
    name = re.compile(rf"(?<=[^\w.])(?:{'|'.join(AREAS)})(?=[^\w:])", re.IGNORECASE)
    for split in SPLITS:
        for snippet in built[split]:
            assert not name.search(snippet.text), snippet
    assert any(MASK in snippet.text for snippet in built["train"])


def test_texts_are_one_line_of_bounded_length(built: dict[Split, list[Snippet]]) -> None:
    for snippet in built["train"]:
        assert "\n" not in snippet.text
        assert "  " not in snippet.text
        assert standard_library.MIN_TOKENS <= len(TOKEN.findall(snippet.text)) <= MAX_TOKENS
    assert {snippet.kind for snippet in built["train"]} == {"code", "docstring"}


def test_one_qualified_name_is_always_in_one_split() -> None:
    # Written down, because a shipped teacher was trained on what this function called "train".
    assert (split_of("asyncio.Queue.get"), split_of("email.Message.walk")) == ("test", "train")
    shares = Counter(split_of(f"area.function_{number}") for number in range(10_000))
    assert shares["train"] == pytest.approx(8_000, abs=200)
    assert shares["validation"] == pytest.approx(1_000, abs=150)


def test_the_tables_are_the_same_bytes_every_time(
    built: dict[Split, list[Snippet]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standard_library, "tables", lambda: built)
    first = write_tables(tmp_path / "a")
    # Another process hashes strings with another seed: the order of sets must not show.
    code = "from pathlib import Path; from models.zoo import standard_library as s; s.write_tables(Path('b'))"
    root = str(Path(standard_library.__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"], cwd=tmp_path, check=True
    )
    for split in SPLITS:
        assert first[split].read_bytes() == (tmp_path / "b" / f"{split}.jsonl").read_bytes()
    row = json.loads(first["test"].read_text(encoding="utf-8").splitlines()[0])
    assert set(row) == {"text", "label"}
    assert row["label"] in AREAS


def _library(root: Path, source: str) -> Path:
    (root / "asyncio").mkdir(parents=True)
    (root / "asyncio" / "events.py").write_text(source, encoding="utf-8")
    return root


def _only(monkeypatch: pytest.MonkeyPatch, library: Path) -> list[Snippet]:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(library))
    return list(standard_library.snippets(["asyncio"]))


def test_a_small_library_is_cut_as_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '''
import time as clock
from . import futures


class Loop:
\f
    @property
    def late(self):
        """Say if asyncio.events is late, in a docstring that is long enough to be kept.

        >>> import asyncio
        """
        import json
        def inner(x): return json.dumps(x)
        return clock.time() + futures.wait(self, time) + self.futures.count + 1
'''
    docstring, code = _only(monkeypatch, _library(tmp_path, source))
    assert docstring.kind == "docstring"
    assert docstring.text == f"Say if {MASK} is late, in a docstring that is long enough to be kept."
    assert code.qualified_name == docstring.qualified_name == "asyncio.Loop.late"
    assert code.text == (
        f"@property def late(self): def inner(x): return {MASK}.dumps(x) "
        f"return {MASK}.time() + {MASK}.wait(self, time) + self.futures.count + 1"
    )


def test_long_functions_become_half_overlapping_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "\n".join(f"    value_{number} = {number}" for number in range(50))
    windows = _only(monkeypatch, _library(tmp_path, f"def run():\n{body}\n"))
    assert [window.overlaps for window in windows] == [False, True, False, True]
    tokens = [TOKEN.findall(window.text) for window in windows]
    assert [len(window) for window in tokens] == [64, 64, 64, 59]
    for before, after in pairwise(tokens):
        assert before[32:] == after[:32]


def test_a_library_without_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadFile, match=r"'asyncio' is not installed.*comes with the \.py files"):
        _only(monkeypatch, tmp_path)
