"""What is compared: which script builds with which packages, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

HERE: Final = Path(__file__).parent
OWN: Final = "ours"
ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"


@final
@dataclass(frozen=True, slots=True)
class Tool:
    """A way to build: `script` has `build(checkpoint, texts, out)`; without `requirements` it is run where we are."""

    name: str
    script: Path
    requirements: Path | None
    runtime: str = ONNXRUNTIME


def _peer(name: str, runtime: str = ONNXRUNTIME) -> Tool:
    return Tool(name, HERE / "builds" / f"{name}.py", HERE / "requirements" / f"{name}.txt", runtime)


TOOLS: Final = (
    _peer("plain"),
    _peer("optimum"),
    _peer("olive"),
    _peer("openvino", OPENVINO),
    Tool(OWN, HERE / "builds" / "ours.py", None),
)


class Failed(Exception):
    """Something of one tool or model did not work, which is a result: `step` is install, build or run."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """What did not work, and the last thing it said."""

    name: str
    step: str
    reason: str


@final
@dataclass(frozen=True)
class Model:
    """A model file and what runs it. `tokenizing` is the folder of its tokenizer; `python` has its runtime."""

    name: str
    tool: str
    file: Path
    tokenizing: Path
    runtime: str
    python: str
    build_seconds: float | None = None
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def bytes(self) -> int:
        """Return the size of the model: the file, and those beside it that share its name and hold the weights."""
        return sum(file.stat().st_size for file in self.file.parent.glob(f"{self.file.stem}.*"))

    @property
    def own(self) -> bool:
        """Return whether we built it."""
        return self.tool == OWN


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
