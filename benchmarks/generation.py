"""One model that reads a source and writes behind it, unpruned, with us, CTranslate2 and Optimum: one interleaved run.

    python benchmarks/generation.py --checkpoint TEACHER --data test.en.gz --label de [--json FILE]

Texts are written alone (batch 1). A row of the table is a model, a number of threads and a number of beams: tokens a
second (what was written, and what ended it), sentences a second, how many times faster a token is than of `ours fp32`
with the 95 % interval over rounds, how many texts are those that `ours fp32` writes, and, of labelled data, BLEU. A
round runs every model forwards and then backwards, each in a process of its own; one works at a time. Each peer is
installed into an environment of its own below `--venvs`, which is kept. What cannot be installed, built or run is named
under the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from against_peers.environments import build, interpreter
from against_peers.measure import QUIET_S, Worker
from against_peers.tools import HERE, OWN, Failed, Failure, Model, Tool
from compress.machine import environment
from compress.statistics import ratio_interval
from export.line_process import line_process
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.data import Table
from models.errors import BadInput, CompressError
from models.overlap import bleu_counts
from models.parallel import read_written
from models.summary import Summary, summarised
from models.tokenizing import Tokenizing

BASELINE: Final = "ours fp32"
AGAIN: Final = "ours fp32 again"
MAX_LENGTH: Final = 1 << 20


def _tool(name: str, script: str, requirements: str | None) -> Tool:
    wanted = None if requirements is None else HERE / "requirements" / f"{requirements}.txt"
    return Tool(name, HERE / "builds" / f"{script}.py", wanted, runtime=name)


TOOLS: Final = (
    _tool(OWN, "ours_writing", None),
    _tool("ctranslate2", "ctranslate2", "ctranslate2"),
    _tool("optimum", "optimum_writing", "optimum"),
)


@final
@dataclass(slots=True)
class Found:
    """What one model did with some threads and beams: tokens of each text, and milliseconds by round and pass."""

    tokens: list[list[int]] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Return the mean seconds of a pass over all texts."""
        return float(np.mean(self.rounds)) / 1000

    @property
    def written(self) -> int:
        """Return how many tokens were written, those that end a text included."""
        return sum(len(tokens) + 1 for tokens in self.tokens)


@final
@dataclass(frozen=True, slots=True)
class Way:
    """How something is written: with how many threads and beams."""

    threads: int
    beams: int


@contextmanager
def writing(model: Model, checkpoint: Path, threads: int) -> Iterator[Worker]:
    """Yield a process that has loaded the model; it is ended on the way out.

    Raises:
        Failed: the model does not load.
    """
    ours = [place for place in sys.path if place] if model.own else []
    with line_process([model.python, "-I", str(HERE / "writing_worker.py"), *ours]) as ask:
        order = {"runtime": model.runtime, "model": str(model.file), "threads": threads, "config": str(checkpoint)}
        worker = Worker(ask)
        worker.ask(order)
        yield worker


def asked(name: str, request: dict[str, Any], running: dict[str, Worker], failures: list[Failure]) -> dict[str, Any]:
    """Return the answer of a process, or nothing where it ended: it is then left out from here on."""
    if name not in running:
        return {}
    try:
        return running[name].ask(request)
    except Failed as failed:
        failures.append(Failure(name, failed.step, failed.reason))
        del running[name]
        return {}


def timed(
    models: Sequence[Model], sources: Sequence[list[int]], given: argparse.Namespace, failures: list[Failure]
) -> dict[Way, dict[str, Found]]:
    """Return what every model wrote and how long it took; those that stop working are left out."""
    found: dict[Way, dict[str, Found]] = {}
    for threads in given.threads:
        with ExitStack() as stack:
            running: dict[str, Worker] = {}
            for model in models:
                try:
                    running[model.name] = stack.enter_context(writing(model, given.checkpoint, threads))
                except Failed as failed:
                    failures.append(Failure(model.name, failed.step, failed.reason))
            for beams in given.beams:
                whole = {"sources": list(sources), "beams": beams, "longest": given.longest}
                taken = {name: Found() for name in running}
                for name in taken:
                    asked(name, whole | {"sources": sources[:3]}, running, failures)
                for number in range(given.rounds):
                    print(f"{threads} threads, {beams} beams, round {number + 1}", file=sys.stderr, flush=True)
                    one_round(taken, whole, number, running, failures)
                found[Way(threads, beams)] = {name: one for name, one in taken.items() if name in running}
    return found


def one_round(
    taken: dict[str, Found], request: dict[str, Any], number: int, running: dict[str, Worker], failures: list[Failure]
) -> None:
    """Let every model write forwards and then backwards, and add the times."""
    order = list(taken) if number % 2 == 0 else list(taken)[::-1]
    for one in taken.values():
        one.rounds.append([])
    for name in [*order, *reversed(order)]:
        time.sleep(QUIET_S)  # threads of the process before spin for a while
        answer = asked(name, request, running, failures)
        if answer:
            taken[name].rounds[-1].append(sum(answer["ns"]) / 1e6)
            taken[name].tokens = answer["tokens"]


def rows_of(found: dict[Way, dict[str, Found]], tokenizing: Tokenizing, table: Table) -> list[dict[str, Any]]:
    """Return the rows of the table, as the JSON file has them."""
    rows = []
    for way, models in found.items():
        first = models[BASELINE]
        for name, one in models.items():
            row: dict[str, Any] = {"model": name, **asdict(way)}
            row |= {"tokens_a_second": one.written / one.seconds, "texts_a_second": len(one.tokens) / one.seconds}
            # By tokens: a model that writes less is not faster for that.
            per_token = [[[ms / model.written for ms in passes] for passes in model.rounds] for model in (first, one)]
            row["ratio"] = asdict(ratio_interval(per_token[0], per_token[1], sides=2))
            row["same"] = float(
                np.mean([ours == theirs for ours, theirs in zip(first.tokens, one.tokens, strict=True)])
            )
            if table.labels is not None:
                row["bleu"] = bleu_of(tokenizing.decoded(one.tokens), table)
            rows.append(row | {"rounds_ms": one.rounds})
    return rows


def bleu_of(texts: Sequence[str], table: Table) -> float:
    """Return BLEU, from 0 to 100."""
    assert table.labels is not None
    right = [label if isinstance(label, tuple) else (str(label),) for label in table.labels]
    counts = [bleu_counts(text.strip(), [str(one) for one in of]) for text, of in zip(texts, right, strict=True)]
    whole = summarised(Summary.BLEU, np.array(counts, dtype=np.float64), np.ones((1, len(counts))))
    return 100 * float(whole[0])


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    columns = ["model", "threads", "beams", "tokens/s", "texts/s", f"times {BASELINE} (95 %)", "same texts", "BLEU"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        ratio = row["ratio"]
        cells = [row["model"], str(row["threads"]), str(row["beams"])]
        cells += [f"{row['tokens_a_second']:.0f}", f"{row['texts_a_second']:.1f}"]
        cells += [f"{ratio['estimate']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})", f"{100 * row['same']:.0f} %"]
        cells += [f"{row['bleu']:.2f}" if "bleu" in row else "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a Hugging Face directory, or one trained here")
    parser.add_argument("--data", required=True, help="texts to write for")
    parser.add_argument("--label", help="column, or ending of the file beside, that holds what is right to write")
    parser.add_argument("--texts", type=int, default=50, help="how many, from the first on")
    parser.add_argument("--longest", type=int, default=100, help="most tokens of a text")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peer", action="append", metavar="NAME", help="only this one (again for more); default: all")
    parser.add_argument("--venvs", type=Path, default=Path("~/.cache/compress/peers").expanduser())
    parser.add_argument("--json", type=Path, help="write everything that was measured there")
    return parser.parse_args(words)


def built(given: argparse.Namespace, tools: Sequence[Tool], out: Path, failures: list[Failure]) -> list[Model]:
    """Return the models of every tool that builds."""
    (out / "texts.json").write_text("[]", encoding="utf-8")
    models: list[Model] = []
    for tool in tools:
        try:
            print(f"{tool.name}: install and build", file=sys.stderr, flush=True)
            python = interpreter(tool, given.venvs)
            models += build(tool, python, given.checkpoint.resolve(), out / "texts.json", out / tool.name)
        except Failed as failed:
            failures.append(Failure(tool.name, failed.step, failed.reason))
    return models


def main(words: Sequence[str] | None = None, tools: Sequence[Tool] = TOOLS) -> None:
    """Write with every model, print the table, and write the JSON file."""
    given = arguments(words)
    failures: list[Failure] = []
    try:
        known = {tool.name for tool in tools}
        if not set(given.peer or ()) <= known:
            raise BadInput(f"known are {', '.join(sorted(known))}", where="--peer")
        data = read_written(Wanted(given.data, label=given.label)).first(given.texts)
        checkpoint = Checkpoint.load(given.checkpoint)
        tokenizing = checkpoint.tokenizing
        sources = [encoding.ids for encoding in tokenizing.encode(data.texts, max_length=MAX_LENGTH)]
        chosen = [tool for tool in tools if tool.name in (OWN, *(given.peer or known))]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder).resolve()
            given.checkpoint = out / "checkpoint"
            given.checkpoint.mkdir()
            checkpoint.save_hugging_face(given.checkpoint)  # which every tool reads, whoever trained it
            models = built(given, chosen, out, failures)
            if BASELINE not in {model.name for model in models}:
                said = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures)
                raise BadInput(f"without {BASELINE!r} there is nothing to compare with ({said})", where="generation")
            # The control is built once and timed twice.
            models += [replace(model, name=AGAIN) for model in models if model.name == BASELINE]
            found = timed(models, sources, given, failures)
    except CompressError as error:
        sys.exit(str(error))
    rows = rows_of(found, tokenizing, data)
    if given.json is not None:
        told = {"environment": environment(max(given.threads)).model_dump(mode="json"), "rows": rows}
        told |= {"settings": {name: str(value) for name, value in vars(given).items()}}
        told |= {"failures": [asdict(failure) for failure in failures]}
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(table_of(rows))
    for failure in failures:
        print(f"Failed: {failure.name}: {failure.step}: {failure.reason}")


if __name__ == "__main__":
    main()
