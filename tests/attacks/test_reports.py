"""Names come from files that others wrote: none of them becomes markup, on the page or on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import ENVIRONMENT, make_run
from support.web_page import Page

from compress.cli.render import print_error, print_facts, print_summary
from compress.record import DataRecord, RunResult
from compress.report.data import make_report
from compress.report.html import render_html
from models.errors import BadInput

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></title></pre></svg><b>",
    "]]><!--",
    "&lt;i&gt; &amp;",
    "javascript:alert(1)",
)


def hostile_run(text: str) -> RunResult:
    run = make_run(stages=3, classes=2, labels=[text, text + "2"])
    stages = []
    for stage in run.stages:
        verdicts = [one.model_copy(update={"message": text, "advice": text}) for one in stage.verdicts]
        details: dict[str, Any] = {
            "sensitivity": [{"name": text, "kl": 1.0, "mse": 1.0}],
            "training": {"points": [{"step": k, "losses": {text: 1.0}} for k in range(2)]},
        }
        artifact = stage.artifact.model_copy(update={"details": details, "created": text})
        stages.append(stage.model_copy(update={"artifact": artifact, "directory": text, "verdicts": verdicts}))
    last = stages[-1]
    environment = ENVIRONMENT.model_copy(update={"cpu": text, "os": text, "flags": [text]})
    stages[-1] = last.model_copy(
        update={"stage": text, "validation": last.validation.model_copy(update={"environment": environment})}
    )
    data = [DataRecord(role="train", source=text, digest=text, examples=1, truncated=0)]
    return run.model_copy(update={"name": text, "stages": stages, "data": data, "recipe": {text: [text]}})


@pytest.mark.parametrize("text", HOSTILE)
def test_names_stay_text_on_the_page(text: str) -> None:
    source = render_html(make_report(hostile_run(text)))
    page = Page(source)
    assert [len(page.elements(tag)) for tag in ("script", "img", "b", "i", "h1", "style", "head")] == [0] * 4 + [1] * 3
    assert page.elements("h1")[0].text == text
    assert page.text.count(text) > 10
    assert "onerror" not in {name for svg in page.elements("text") for name in svg.attributes}


def test_characters_that_a_page_cannot_hold_are_replaced() -> None:
    run = make_run(stages=1).model_copy(update={"name": "a\x00b\x1b[31m\ud800\x9f"})
    source = render_html(make_report(run))
    source.encode("utf-8")
    assert Page(source).elements("h1")[0].text == "a\ufffdb\ufffd[31m\ufffd\ufffd"


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", "[link=http://a]b[/link]", ":warning:", "[bold"])
def test_names_stay_text_on_the_terminal(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(make_report(hostile_run(text)), tmp_path)
    print_facts({text: text, "more": {text: [{text: text}]}})
    print_error(BadInput(text, where=text, fix=text))
    told = capsys.readouterr()
    assert told.out.count(text) > 5
    assert told.err == f"error: {text}\nwhere: {text}\ntry: {text}\n"
