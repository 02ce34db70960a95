"""The page of a bundle: metadata that the hub reads, what was measured, and nothing of the machine's folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from support.bundles import tiny_bundle
from support.examples import tiny_recipe
from support.runs import make_run, with_trim

from compress.model_card import model_card
from compress.recipe import make_recipe
from compress.record import DataRecord, RunResult
from compress.sources import load_inputs
from export.card import Card
from models.provenance import Provenance, hub_name, provenance_of
from models.tasks import task_named

KNOWN = Provenance("org/teacher", "apache-2.0", languages=("en", "de"))


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return tiny_bundle(tmp_path_factory.mktemp("sealed") / "bundle").card


def hub_card(text: str) -> ModelCard:
    return ModelCard(text, ignore_metadata_errors=False)


def test_every_bundle_has_a_head_that_the_hub_reads(card: Card, tmp_path: Path) -> None:
    page = hub_card((tiny_bundle(tmp_path / "bundle").directory / "README.md").read_text())
    assert page.data.to_dict() == {
        "library_name": "onnxruntime",
        "pipeline_tag": "text-classification",
        "tags": ["onnx", "onnxruntime", "compress-transformers"],
    }
    assert page.text.lstrip().startswith("# bert for text-classification")


def test_a_run_tells_what_it_knows(card: Card) -> None:
    run = with_data(make_run(), "fit.tsv", "held-out.tsv", "dev.tsv")
    page = hub_card(model_card(run, KNOWN, card))
    data = page.data
    assert (data.license, data.base_model, data.language) == ("apache-2.0", "org/teacher", ["en", "de"])
    assert (data.pipeline_tag, data.library_name, data.metrics) == ("text-classification", "onnxruntime", ["accuracy"])
    (found,) = data.eval_results
    test = run.last.test
    assert test is not None
    assert (found.metric_type, found.metric_value) == ("accuracy", round(test.estimate, 6))
    assert (data.model_name, found.dataset_split) == ("sst2", "test")
    for words in ("Where it comes from", "How it was compressed", "What was measured", "Limits", "How to use it"):
        assert f"\n## {words}\n" in page.text
    assert "\nMade from its teacher by distill, prune, quantize, export: 6.8" in page.text
    for stage in run.stages:
        assert f"\n| {stage.stage} | " in page.text
    for verdict in run.last.verdicts:
        assert f"- {verdict.gate} gate passed: " in page.text
    assert "Its page states the licence apache-2.0" in page.text
    assert "12.4" in page.text and "Xeon" in page.text
    assert run.stages[0].artifact.digest[:12] in page.text


def test_what_is_not_known_is_left_out_and_said(card: Card) -> None:
    page = hub_card(model_card(make_run(timed=False, test=0), Provenance(), card))
    told = page.data.to_dict()
    assert not {"license", "base_model", "language", "datasets"} & set(told)
    assert "No licence is stated" in page.text
    assert "The teacher is a checkpoint that is not from the hub (digest" in page.text
    assert page.data.eval_results[0].dataset_split == "validation"


def test_a_teacher_of_the_run_itself_and_others_are_told(card: Card) -> None:
    run = make_run().model_copy(update={"recipe": {"ensemble": ["/home/a", "/home/b"]}})
    stages = [run.stages[0].model_copy(update={"stage": "train"}), *run.stages[1:]]
    trained = run.model_copy(update={"stages": stages})
    text = model_card(trained, Provenance(), card)
    assert "The teacher is a network trained by this run (digest" in text
    assert "Students learnt from 2 more, of which nothing is said here." in text
    assert "/home" not in text
    from_hub = trained.model_copy(update={"recipe": {"teacher": "org/teacher"}})
    assert "teacher is `org/teacher` of the Hugging Face hub trained by this run" in model_card(from_hub, KNOWN, card)
    made = "teacher is a checkpoint made from `org/teacher` of the Hugging Face hub"
    assert made in model_card(run, KNOWN, card)


def test_a_licence_of_its_own_has_its_name_and_link(card: Card) -> None:
    own = Provenance("org/teacher", "other", "Own Licence 1.0", "https://example.org/licence")
    page = hub_card(model_card(make_run(), own, card))
    assert (page.data.license, page.data.license_name) == ("other", "Own Licence 1.0")
    assert page.data.license_link == "https://example.org/licence"
    assert "the licence Own Licence 1.0" in page.text


def with_data(run: RunResult, *sources: str) -> RunResult:
    roles = ("train", "validation", "test")
    data = [
        DataRecord(role=role, source=source, digest="d" * 64, examples=10, truncated=0)  # type: ignore[arg-type]
        for role, source in zip(roles, sources, strict=False)
    ]
    return run.model_copy(update={"data": data})


def test_data_is_named_and_no_folder_is(card: Card) -> None:
    run = with_data(make_run(), "/home/somebody/secret/fit.tsv", "org/set:part", "~/private/dev.tsv")
    text = model_card(run, KNOWN, card)
    page = hub_card(text)
    assert page.data.datasets == ["org/set"]
    assert "| fit.tsv | learned from | 10 |" in page.text
    assert "| org/set:part | judged on by the gates | 10 |" in page.text
    assert page.data.eval_results[0].dataset_name == "dev.tsv"
    assert not [word for word in ("home", "somebody", "secret", "private") if word in text]


@pytest.mark.parametrize("text", ["a | b\n# c", "`x`", "---\nlicense: mit\n---", "<script>x</script>", ": {["])
def test_names_stay_names(text: str, card: Card) -> None:
    run = with_data(make_run(), text, text, text)
    page = hub_card(model_card(run.model_copy(update={"name": text}), KNOWN, card))
    assert page.data.license == "apache-2.0"
    assert page.data.model_name == text
    assert "<script>" not in page.text
    assert [line for line in page.text.splitlines() if line.startswith("# ")] == [
        "# bert for text-classification, for ONNX Runtime"
    ]


def test_settings_that_are_not_the_usual_ones_are_told(card: Card) -> None:
    run = with_trim(make_run())
    stages = []
    for stage in run.stages:
        settings = {"weights": "int4", "percentile": 99.99} if stage.stage == "quantize" else {}
        stages.append(stage.model_copy(update={"artifact": stage.artifact.model_copy(update={"settings": settings})}))
    text = model_card(run.model_copy(update={"stages": stages}), KNOWN, card)
    assert "- quantize: `weights: int4`\n" in text
    assert "- export: the usual settings\n" in text


def test_of_a_search_the_chosen_point_is_told(card: Card) -> None:
    run = make_run()
    stages = [*run.stages[:4], run.stages[4].model_copy(update={"stage": "2.0x"})]
    text = model_card(run.model_copy(update={"stages": stages, "chosen": "2.0x", "notes": ["x"]}), KNOWN, card)
    assert "\n| 2.0x | " in text
    assert "\n| prune | " not in text


PAGES = {
    "---\nlicense: mit\nlanguage: en\n---\n# x": ("mit", ("en",)),
    "---\nlicense: [cc-by-4.0, mit]\nlanguage: [en, multilingual, '../x', 3]\n---\n": (
        "cc-by-4.0",
        ("en", "multilingual"),
    ),
    "# no metadata\n---\nlicense: mit\n---\n": (None, ()),
    "---\nlicense: {a: b}\n---\n": (None, ()),
    "---\nlicense: 'a\n---\n": (None, ()),
    "---\n- mit\n---\n": (None, ()),
    "---\nlicense: !!python/object/apply:os.system ['ls']\n---\n": (None, ()),
    '---\nlicense: "mit\\n# x"\n---\n': (None, ()),
    "---\n" + "[" * 5000 + "\n---\n": (None, ()),
    "": (None, ()),
    "---\nlicense: mit\nbase_model: ../org/teacher\n---\n": ("mit", ()),
}


@pytest.mark.parametrize(("page", "found"), PAGES.items())
def test_a_teachers_page_states_its_licence(
    page: str, found: tuple[str | None, tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(page)
    told = provenance_of(str(tmp_path), tmp_path)
    assert (told.licence, told.languages) == found
    assert told.name is None


def test_a_run_reads_its_teachers_page(tmp_path: Path) -> None:
    plain = tiny_recipe(tmp_path)
    (tmp_path / "teacher" / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
    inputs = load_inputs(make_recipe(plain, where="test"), cache=tmp_path / "cache")
    assert inputs.base.source == Provenance(licence="mit", languages=("en",))
    with Path(plain["data"]["train"]).open("a") as file:  # another class, so that there is something to train
        file.write('{"text": "w3", "label": 1}\n')
    new = plain | {"train": {"architecture": {"family": "bert", "layers": 1, "hidden_size": 32, "vocab_size": 300}}}
    made = load_inputs(make_recipe(new, where="test"), cache=tmp_path / "cache")
    assert made.base.source == Provenance()


def test_a_page_tells_what_its_checkpoint_was_made_from(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: [org/first, org/second]\n---\n")
    assert provenance_of(str(tmp_path), tmp_path) == Provenance("org/first", "mit")
    assert provenance_of("org/second", tmp_path) == Provenance("org/second", "mit")


def test_a_teacher_without_a_page_states_nothing(tmp_path: Path) -> None:
    assert provenance_of("org/teacher", tmp_path) == Provenance("org/teacher")
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert provenance_of("org/teacher", tmp_path) == Provenance("org/teacher")


def test_a_directory_has_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "teacher").mkdir(parents=True)
    assert hub_name("org/teacher") == "org/teacher"
    monkeypatch.chdir(tmp_path)
    assert [hub_name(one) for one in ("org/teacher", "/a/b", "../a", "~/a", "a/b/c", "")] == [None] * 6
    assert hub_name("bert-base-uncased") == "bert-base-uncased"


def test_a_bundle_of_embeddings_is_loaded_by_sentence_transformers(card: Card) -> None:
    metadata = replace(card, task=task_named("sentence-embedding")).metadata
    assert (metadata["pipeline_tag"], metadata["library_name"]) == ("sentence-similarity", "sentence-transformers")
    assert replace(card, task=None).metadata["pipeline_tag"] == "feature-extraction"
