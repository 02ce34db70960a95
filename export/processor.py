"""The processor that this runs on, and whether whole numbers come out of it as they should."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final, NamedTuple

LISTING: Final = Path("/proc/cpuinfo")
FLAGS: Final = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
_OF_X86: Final = ("sse2", "avx2")
_VNNI: Final = ("avx_vnni", "avx512_vnni")


class Processor(NamedTuple):
    """Its name, and every instruction set that the system lists; None where the system lists none."""

    name: str
    flags: tuple[str, ...] | None

    @property
    def told_flags(self) -> list[str]:
        """Return the instruction sets that matter to the kernels of ONNX Runtime."""
        return [flag for flag in FLAGS if flag in (self.flags or ())]

    @property
    def saturates(self) -> bool | None:
        """Return whether products of uint8 and int8 are summed in pairs of 16 bits, which may be too few: on x86
        without VNNI. None where it is not known.
        """
        if self.flags is None:
            return None
        return any(flag in self.flags for flag in _OF_X86) and not any(flag in self.flags for flag in _VNNI)


def processor(listing: Path = LISTING) -> Processor:
    """Return the processor that the system describes in `listing`, a file of Linux, or what Python knows of it."""
    if not listing.is_file():
        return Processor(platform.processor() or platform.machine(), None)
    first = listing.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    fields = dict([part.strip() for part in line.split(":", 1)] for line in first.splitlines() if ":" in line)
    flags = fields.get("flags") or fields.get("Features") or ""
    return Processor(fields.get("model name") or platform.machine(), tuple(flags.split()))
