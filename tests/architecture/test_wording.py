"""The project speaks of itself alone: of no machine that it was made on, and of nobody who made it."""

from __future__ import annotations

import base64
import re
import subprocess

import pytest
from support.real import ROOT

# Encoded, so that this file does not hold what it looks for.
BANNED = [
    base64.b64decode(word).decode()
    for word in (
        "XGJzZXNzaW9ucz9cYig/IV9jb25maWcp",
        "XGJhZ2VudHM/XGI=",
        "L3dvcmsv",
        "L3Jvb3Qv",
        "L29wdC9weXBp",
        "cHl0aG9uaG9zdGVk",
        "cHlwaVwub3Jn",
        "ZG93bmxvYWRcLnB5dG9yY2g=",
        "XGJjbGF1ZGVcYg==",
        "XGJhbnRocm9waWNcYg==",
    )
]
# An ONNX Runtime object is a session, and a window that is driven: only there is the word the field's own.
RUNTIME = base64.b64decode("c2Vzc2lvbg==").decode()


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", BANNED)
def test_words_that_have_no_place_here(pattern: str) -> None:
    found = []
    for name in tracked():
        data = (ROOT / name).read_bytes()
        if b"\0" in data[:4096] or name.endswith((".safetensors", ".gz", "tokenizer.json")):
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
            if re.search(pattern, line, re.IGNORECASE) and not (RUNTIME in pattern and _of_the_runtime(name, line)):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert found == []


def _of_the_runtime(name: str, line: str) -> bool:
    about = (
        "InferenceSession",
        "SessionOptions",
        "onnxruntime",
        "runtime",
        "Runtime",
        "export.session",
        "| target |",
        "WebDriver",
    )
    places = (
        "export/",
        "tests/export/",
        "tests/support/searches",
        "benchmarks/",
        "compress/pruning/latency",
        "compress/measure",
    )
    return name.startswith(places) or any(word in line for word in about)
