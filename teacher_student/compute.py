"""Where and in which precision a network is trained: decided once, then handed down."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and whether matrices are multiplied in bf16 (weights, sums and losses stay in float32)."""

    device: str = "cpu"
    bf16: bool = False

    @staticmethod
    def best() -> Compute:
        """Return the GPU if there is one, and bf16 where the hardware multiplies it.

        A CPU without AVX512-BF16 or AMX emulates bf16 and is slower with it than in float32.
        """
        if torch.cuda.is_available():
            return Compute("cuda", torch.cuda.is_bf16_supported(including_emulation=False))
        abilities = torch.cpu.get_capabilities()
        return Compute("cpu", bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16")))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)
