"""Ours: the checkpoint's own graphs, the same in int8 as the stage `quantize` makes it by default, and, with the search
in the graph, a file for each number of beams, this one and one with what runs for every word in blocks of 8 bits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.quantization.schemes import choices_in_blocks, forms_of, quantize
from export.graph_file import graph_file, search_file
from export.target import CPU
from models.checkpoint import Checkpoint
from models.kinds import Int8Form

BEAMS = (1, 4)


def build(checkpoint: Path, texts: list[dict[str, list[int]]], out: Path) -> dict[str, Any]:
    """Write the graphs into `out`, with the checkpoint of each, and return the files that write."""
    teacher = Checkpoint.load(checkpoint)
    models = {"fp32": teacher, "int8": quantize(teacher, forms_of(teacher))}
    for name, model in models.items():
        folder = out / name
        folder.mkdir()
        model.save(folder)
        graph = graph_file(model.network(), CPU)
        for file, data in ((graph.name, graph.data), *graph.extra.items()):
            (folder / file).write_bytes(data)
    made = {f"ours {name}": f"{name}/{graph.name}" for name in models}
    if teacher.generation is not None:
        blocks = choices_in_blocks(teacher.shape, forms_of(teacher), Int8Form.BYTES128)["all"]
        for name, model in (("int8", models["int8"]), ("int8 in blocks", quantize(teacher, blocks))):
            folder = out / f"search {name}"
            folder.mkdir()
            model.save(folder)
            for beams in BEAMS:
                how = replace(teacher.generation, beams=beams, sampling=None, length_penalty=1.0, no_repeat=0)
                (folder / f"search-{beams}.onnx").write_bytes(search_file(model.network(), how, CPU).data)
            made[f"ours {name}, searching"] = f"search {name}/search-{BEAMS[0]}.onnx"
    return made
