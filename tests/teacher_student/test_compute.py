from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import sys
from teacher_student.compute import Compute

library, name, given = ctypes.CDLL(None), b"ONEDNN_PRIMITIVE_CACHE_CAPACITY", sys.argv[1].encode()
library.getenv.restype = ctypes.c_char_p
library.setenv(name, given, 1) if given else library.unsetenv(name)
Compute("cpu", bf16=sys.argv[2] == "bf16")
print((library.getenv(name) or b"nothing").decode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is asked, as oneDNN asks it")
@pytest.mark.parametrize(
    ("given", "arithmetic", "told"), [("", "bf16", "5000"), ("7", "bf16", "7"), ("", "float32", "nothing")]
)
def test_kernels_are_kept_in_bf16_as_many_as_the_user_says_or_enough(given: str, arithmetic: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given, arithmetic], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == told
