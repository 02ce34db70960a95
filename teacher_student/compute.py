"""Where and in which precision a network is trained: decided once, then handed down."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

KERNELS = 5000  # of a pruned model in one training, with 40 lengths of batches; 1,000 of them take 0.2 GB


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and whether matrices are multiplied in bf16 (weights, sums and losses stay in float32)."""

    device: str = "cpu"
    bf16: bool = False

    def __post_init__(self) -> None:
        """Let PyTorch keep its kernels."""
        if self.bf16 and self.device == "cpu":
            _keep_kernels()

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


def _keep_kernels() -> None:
    """Let oneDNN, which multiplies in bf16 on CPU, keep as many kernels as a pruned model has shapes of products.

    They are those of every layer, for every length of a batch, in both passes. It keeps 1,024 unless told otherwise,
    and made others anew in an eighth of the time of a training. What the user has set stands. oneDNN reads this once,
    with its first product, and offers no call for it that PyTorch passes on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).setenv(b"ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS).encode(), 0)
