"""A process that answers JSON lines with JSON lines."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, final

Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


@final
class EndedError(Exception):
    """The process ended instead of answering: with `code`, after it `said` this on standard error."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"ended with code {code}: {said}")
        self.code = code
        self.said = said


@contextmanager
def line_process(command: Sequence[str]) -> Iterator[Ask]:
    """Yield what asks a new process and returns its answer, or raises EndedError; it is ended on the way out."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8"
        )
        try:
            yield lambda request: _answer(process, errors, request)
        finally:
            process.kill()
            process.communicate()


def _answer(process: subprocess.Popen[str], errors: IO[str], request: Mapping[str, Any]) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise TypeError("a process that answers is started with pipes")
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        code = process.wait()
        errors.seek(0)
        raise EndedError(code, errors.read())
    answer: dict[str, Any] = json.loads(line)
    return answer
