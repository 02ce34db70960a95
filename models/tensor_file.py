"""Writing tensors as safetensors."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors of the CPU into a new safetensors file.

    Raises:
        OSError: the disk is full, or the file may not be written.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        # The library wraps what the system said into an error of its own.
        raise OSError(errno.EIO, str(error), str(path)) from None
