"""What a bundle's page says of other libraries: the classes that the loaders' tests use, and code that runs alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.loadable import BY_TASK, write_loadable

from export.bundle import Bundle

CLASSES = {
    "classes": "ORTModelForSequenceClassification",
    "tokens": "ORTModelForTokenClassification",
    "spans": "ORTModelForQuestionAnswering",
    "states": "ORTModelForFeatureExtraction",
    "vectors": "ORTModelForFeatureExtraction",
    "t5": "ORTModelForSeq2SeqLM",
    "gpt2": "ORTModelForCausalLM",
}
ALONE = "import sys\nassert not {'torch', 'transformers', 'compress', 'models', 'export', 'onnx'} & set(sys.modules)\n"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {name: write_loadable(name, folder / name) for name in CLASSES}


@pytest.mark.parametrize("name", CLASSES)
def test_a_page_names_the_classes_that_load_it(name: str, bundles: dict[str, Bundle]) -> None:
    text = (bundles[name].directory / "README.md").read_text(encoding="utf-8")
    assert f'`{CLASSES[name]}.from_pretrained(".")`' in text
    assert "{ subfolder: '' }" in text
    assert ("max_new_tokens" in text) is ("generation" in BY_TASK[name])
    assert ("SentenceTransformer" in text) is (name == "vectors")


@pytest.mark.parametrize("name", ["classes", "tokens", "vectors"])
def test_the_pages_code_runs_with_the_runtime_and_tokenizers_alone(name: str, bundles: dict[str, Bundle]) -> None:
    directory = bundles[name].directory
    code = (directory / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + "\n" + ALONE],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip()
