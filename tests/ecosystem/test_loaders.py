"""The same directory, unchanged, in the libraries that people have: what they answer is what we answer.

Each library is installed into a folder of its own that `--peers FOLDER` names, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from support.loadable import BY_TASK, asked_of, our_answers, write_loadable
from support.peers import folder_of, node_answers, python_answers

from export.bundle import Bundle
from export.manifest import GOLDEN_FILE, Golden, read_record
from export.verify import verify_bundle

pytestmark = pytest.mark.slow
Bundles = Mapping[str, Bundle]
# int8 is rounded by other code in Node's builds.
TOLERANCE = 1e-4
INT8_TOLERANCE = 5e-3
EMBEDDING_TOLERANCE = 1e-5  # their length is 1
ON_WEB = ("classes", "classes-pruned", "classes-int8", "tokens", "spans")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    return {name: write_loadable(name, folder / name) for name in BY_TASK}


def asked(bundles: Bundles) -> list[dict[str, Any]]:
    return [asked_of(bundle, BY_TASK[name]) for name, bundle in bundles.items()]


@pytest.fixture(scope="module")
def optimum(bundles: Bundles, request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    return dict(zip(bundles, python_answers("ask_optimum.py", asked(bundles), folder_of(request.config)), strict=True))


@pytest.fixture(scope="module")
def transformers_js(bundles: Bundles, request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    found = node_answers("ask_transformers_js.mjs", asked(bundles), folder_of(request.config))
    return dict(zip(bundles, found, strict=True))


def assert_same(theirs: list[Any], ours: list[Any], *, tolerance: float) -> None:
    assert len(theirs) == len(ours)
    for their, our in zip(theirs, ours, strict=True):
        if isinstance(our, str):
            assert their.strip() == our.strip()
        elif isinstance(our, dict):
            assert their == pytest.approx(our, abs=tolerance)
        else:
            np.testing.assert_allclose(their, our, atol=tolerance)


@pytest.mark.parametrize("name", BY_TASK)
def test_optimum_answers_as_we_do(name: str, bundles: Bundles, optimum: dict[str, list[Any]]) -> None:
    assert_same(optimum[name], our_answers(bundles[name], BY_TASK[name]), tolerance=TOLERANCE)


@pytest.mark.parametrize("name", BY_TASK)
def test_transformers_js_answers_as_we_do(name: str, bundles: Bundles, transformers_js: dict[str, list[Any]]) -> None:
    tolerance = INT8_TOLERANCE if name.endswith("int8") else TOLERANCE
    assert_same(transformers_js[name], our_answers(bundles[name], BY_TASK[name]), tolerance=tolerance)


@pytest.mark.parametrize("name", ["vectors", "vectors-projected"])
def test_sentence_transformers_gives_our_embeddings(
    name: str, bundles: Bundles, request: pytest.FixtureRequest
) -> None:
    bundle = bundles[name]
    asked = [asked_of(bundle, BY_TASK[name])]
    (theirs,) = python_answers("ask_sentence_transformers.py", asked, folder_of(request.config))
    ours = [answer.values["embedding"] for answer in bundle.predict(asked[0]["texts"])]
    np.testing.assert_allclose(theirs, ours, atol=EMBEDDING_TOLERANCE)


def test_onnxruntime_web_passes_the_golden_examples(bundles: Bundles, request: pytest.FixtureRequest) -> None:
    chosen = [bundles[name] for name in ON_WEB]
    wanted = [{"bundle": str(bundle.directory)} for bundle in chosen]
    found = node_answers("ask_onnxruntime_web.mjs", wanted, folder_of(request.config))
    for bundle, logits in zip(chosen, found, strict=True):
        golden = read_record(Golden, bundle.directory / GOLDEN_FILE)
        for example, one in zip(golden.examples, logits, strict=True):
            np.testing.assert_allclose(one, example.logits, atol=golden.tolerance)


@pytest.mark.parametrize("name", BY_TASK)
def test_nothing_was_changed(name: str, bundles: Bundles) -> None:
    verify_bundle(bundles[name].directory)
    files = {
        str(path.relative_to(bundles[name].directory)) for path in bundles[name].directory.rglob("*") if path.is_file()
    }
    assert files == {*bundles[name].manifest.files, "manifest.json"}
