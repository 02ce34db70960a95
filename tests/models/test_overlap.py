"""BLEU, chrF and ROUGE against sacreBLEU, rouge_score and what Lin 2004 says of examples."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from models.overlap import bleu_counts, chrf, chrf_counts, rouge_scores, words_13a
from models.summary import Summary, contributions, summarised

OURS = [
    "Ein Mann geht die Straße hinunter.",
    "Two dogs, 3.5 years old, play in the snow - don't they?",
    "",
    "a",
    "Eine Frau sagt: &quot;Hallo&quot; & winkt (mit der Hand) 1,000-mal!",
    "Kinder spielen im Park mit einem roten Ball",
]
THEIRS = [
    ["Ein Mann läuft die Straße hinunter.", "Ein alter Mann geht eine Straße entlang."],
    ["Two dogs aged 3.5 years play in the snow, don't they?", "Dogs play."],
    ["Nichts.", "Gar nichts ist da."],
    ["a", "b c"],
    ['Eine Frau sagt "Hallo" und winkt 1,000-mal mit der Hand!', "Eine Frau winkt."],
    ["Die Kinder spielen mit einem Ball im Park.", "Kinder spielen im Park mit einem roten Ball."],
]


def figures(texts: list[str], expected: list[list[str]]) -> tuple[float, float]:
    once = np.ones((1, len(texts)))
    counts = [
        np.array([count(text, some) for text, some in zip(texts, expected, strict=True)], dtype=np.float64)
        for count in (bleu_counts, chrf_counts)
    ]
    bleu, characters = (
        summarised(summary, some, once)[0] for summary, some in zip((Summary.BLEU, Summary.CHRF), counts, strict=True)
    )
    return float(bleu), float(characters)


def theirs(texts: list[str], expected: list[list[str]]) -> tuple[float, float]:
    streams = [list(column) for column in zip(*expected, strict=True)]
    scores = (sacrebleu.corpus_bleu(texts, streams).score, sacrebleu.corpus_chrf(texts, streams).score)
    return scores[0] / 100, scores[1] / 100


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1), slice(1, 2), slice(2, 4), slice(3, 6)])
def test_bleu_and_chrf_are_those_of_sacrebleu(rows: slice) -> None:
    assert figures(OURS[rows], THEIRS[rows]) == pytest.approx(theirs(OURS[rows], THEIRS[rows]), abs=1e-9)


@given(
    st.lists(
        st.tuples(st.text(alphabet="ab .,1-&'", max_size=12), st.text(alphabet="ab .,1-&'", min_size=1, max_size=12)),
        min_size=1,
        max_size=6,
    )
)
def test_of_any_texts_too(pairs: list[tuple[str, str]]) -> None:
    texts, expected = [one for one, _ in pairs], [[other] for _, other in pairs]
    assert figures(texts, expected) == pytest.approx(theirs(texts, expected), abs=1e-9)


def test_words_are_cut_as_mteval_cuts_them() -> None:
    assert words_13a("It's 3.5, or (1-2) &amp; more.") == [
        "It's",
        "3.5",
        ",",
        "or",
        "(",
        "1",
        "-",
        "2",
        ")",
        "&",
        "more",
        ".",
    ]


def test_one_text_has_the_chrf_of_its_counts() -> None:
    counts = chrf_counts(OURS[0], THEIRS[0])
    assert chrf(counts) == pytest.approx(sacrebleu.sentence_chrf(OURS[0], THEIRS[0]).score / 100)


def test_rouge_counts_words_pairs_and_what_comes_in_the_same_order() -> None:
    # Lin 2004, section 3.1: the first shares police ... the gunman, the second the gunman alone in order.
    expected = ["police killed the gunman"]
    assert rouge_scores("Police kill the gunman!", expected) == pytest.approx((0.75, 1 / 3, 0.75))
    assert rouge_scores("the gunman kill police", expected) == pytest.approx((0.75, 1 / 3, 0.5))
    assert rouge_scores("", expected) == (0.0, 0.0, 0.0)
    assert rouge_scores("a b", ["x", "a b", "b"]) == (1.0, 1.0, 1.0)


def rouge_of_google(text: str, expected: list[str]) -> list[float]:
    kinds = ["rouge1", "rouge2", "rougeL"]
    found = RougeScorer(kinds, use_stemmer=False).score_multi(expected, text)
    return [found[kind].fmeasure for kind in kinds]


@pytest.mark.parametrize(("text", "expected"), zip(OURS, THEIRS, strict=True))
def test_rouge_is_that_of_rouge_score(text: str, expected: list[str]) -> None:
    assert rouge_scores(text, expected) == pytest.approx(rouge_of_google(text, expected), abs=1e-12)


@given(
    st.text(alphabet="ab1 -.Äß_", max_size=20),
    st.lists(st.text(alphabet="ab1 -.Äß_", max_size=20), min_size=1, max_size=3),
)
def test_rouge_of_any_texts_too(text: str, expected: list[str]) -> None:
    assert rouge_scores(text, expected) == pytest.approx(rouge_of_google(text, expected), abs=1e-12)


@pytest.mark.parametrize("summary", [Summary.BLEU, Summary.CHRF, Summary.PER_TOKEN, Summary.PERPLEXITY])
def test_the_mean_of_the_contributions_is_the_metric(summary: Summary) -> None:
    pairs = list(zip(OURS, THEIRS, strict=True))
    if summary in (Summary.BLEU, Summary.CHRF):
        count = bleu_counts if summary is Summary.BLEU else chrf_counts
        statistics = np.array([count(text, some) for text, some in pairs], dtype=np.float64)
    else:
        statistics = np.array([[3.0, 2], [8, 4], [1, 3]])
    whole = summarised(summary, statistics, np.ones((1, len(statistics))))[0]
    assert contributions(summary, statistics).mean() == pytest.approx(whole)
    assert contributions(summary, statistics[:1]) == pytest.approx(summarised(summary, statistics[:1], np.ones((1, 1))))


def test_a_perfect_text_is_what_the_others_are_worse_than() -> None:
    statistics = np.array([bleu_counts(text, [text]) for text in (OURS[0], OURS[5], OURS[4])], dtype=np.float64)
    worse = statistics.copy()
    worse[1, :4] = bleu_counts("ganz andere Wörter stehen hier nun leider da", [OURS[5]])[:4]
    values = contributions(Summary.BLEU, worse)
    assert values[1] < values[0]
    assert summarised(Summary.BLEU, statistics, np.ones((1, 3)))[0] == pytest.approx(1.0)
