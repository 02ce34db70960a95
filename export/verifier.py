"""The program in a bundle that proves it on a device without Python."""

from __future__ import annotations

from importlib import resources
from typing import Final

VERIFIER_FILE: Final = "verify.mjs"


def verifier() -> bytes:
    """Return the program, for Node 18 or later."""
    return (resources.files("export") / VERIFIER_FILE).read_bytes()
