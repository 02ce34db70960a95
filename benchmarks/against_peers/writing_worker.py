"""The process in which one model writes: JSON lines in, JSON lines out. `python -I writing_worker.py [PATH ...]`; each
PATH is a folder to import from besides.

First line in: {"runtime": NAME of RUNTIMES, "model": file, "threads": n, "config": folder of the checkpoint}. Then
requests {"sources": rows of token numbers, "beams": n, "longest": most tokens to write}, each answered by the tokens
that were written for each source, written alone, without what begins and ends them, and by the nanoseconds each took.
The end of the input ends it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Write = Callable[[list[int], int, int], list[int]]


def open_ours(model: Path, config: Mapping[str, Any], threads: int) -> Write:
    """Return what writes with the graphs that we emit, as `compress predict` does; one that searches by itself is for
    the beams in its name.
    """
    from dataclasses import replace

    from export.graph_file import ENCODER
    from export.graph_search import GraphSearch
    from export.runtime_steps import RuntimeSteps, writer_sessions
    from models.checkpoint import Checkpoint
    from models.generation import generate, starts

    checkpoint = Checkpoint.load(model.parent)
    if checkpoint.generation is None:
        raise SystemExit("the model writes nothing")
    settings = replace(checkpoint.generation, sampling=None, length_penalty=1.0, no_repeat=0)

    @cache
    def search(beams: int) -> GraphSearch:
        how = replace(settings, beams=beams)
        return GraphSearch.open(checkpoint.shape, how, model.with_name(f"search-{beams}.onnx"), threads=threads)

    def write_whole(source: list[int], beams: int, longest: int) -> list[int]:
        return list(search(beams).write(source, max_tokens=longest)[0].tokens)

    if model.name.startswith("search-"):
        return write_whole
    sessions = writer_sessions(checkpoint.shape, model, model.with_name(f"{ENCODER}.onnx"), threads=threads)

    def write(source: list[int], beams: int, longest: int) -> list[int]:
        how = replace(settings, beams=beams, max_tokens=longest)
        ((best, *_),) = generate(RuntimeSteps(sessions, [source]), starts(how, 1), how)
        return list(best.tokens)

    return write


def open_ctranslate2(model: Path, config: Mapping[str, Any], threads: int) -> Write:
    """Return what writes with a converted model; it is given words, and gives words back."""
    import ctranslate2

    translator = ctranslate2.Translator(str(model.parent), device="cpu", intra_threads=threads, inter_threads=1)
    words = json.loads((model.parent / "shared_vocabulary.json").read_text(encoding="utf-8"))
    numbers = {word: number for number, word in enumerate(words)}

    def write(source: list[int], beams: int, longest: int) -> list[int]:
        (found,) = translator.translate_batch(
            [[words[token] for token in source]], beam_size=beams, max_decoding_length=longest
        )
        return [numbers[word] for word in found.hypotheses[0]]

    return write


def open_optimum(model: Path, config: Mapping[str, Any], threads: int) -> Write:
    """Return what writes with Optimum's model of `transformers`."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSeq2SeqLM

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    torch.set_num_threads(threads)
    opened = ORTModelForSeq2SeqLM.from_pretrained(
        model.parent, session_options=options, provider="CPUExecutionProvider"
    )
    special = {config.get(key) for key in ("eos_token_id", "pad_token_id", "decoder_start_token_id")}

    def write(source: list[int], beams: int, longest: int) -> list[int]:
        ids = torch.tensor([source])
        (found,) = opened.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=beams,
            max_new_tokens=longest,
            do_sample=False,
            length_penalty=1.0,
        )
        return [token for token in found.tolist() if token not in special]

    return write


RUNTIMES: Mapping[str, Callable[[Path, Mapping[str, Any], int], Write]] = {
    "ours": open_ours,
    "ctranslate2": open_ctranslate2,
    "optimum": open_optimum,
}


def answer(write: Write, request: Mapping[str, Any]) -> dict[str, Any]:
    """Write every source once and return what was written and the time each took."""
    tokens, ns = [], []
    gc.disable()
    for source in request["sources"]:
        start = time.perf_counter_ns()
        found = write(source, request["beams"], request["longest"])
        ns.append(time.perf_counter_ns() - start)
        tokens.append(found)
    gc.enable()
    return {"tokens": tokens, "ns": ns}


def main() -> None:
    """Answer requests until the input ends."""
    sys.path[:] = [*sys.argv[1:], *sys.path]
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    order = json.loads(sys.stdin.readline())
    config = json.loads((Path(order["config"]) / "config.json").read_text(encoding="utf-8"))
    write = RUNTIMES[order["runtime"]](Path(order["model"]), config, order["threads"])
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(write, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
