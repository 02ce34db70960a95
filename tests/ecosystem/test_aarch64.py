"""The verifier on 64-bit Arm, which QEMU runs: other int8 kernels, the same answers within the bundle's tolerance.

`pytest tests/ecosystem/test_aarch64.py --peers FOLDER -rP` prints the largest difference of a logit.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.aarch64 import aarch64_python
from support.examples import tiny_tokenizing
from support.networks import quantized_network, random_network, tiny_shape
from support.peers import folder_of

from export.bundle import Contents, write_bundle
from export.graph_file import graph_file
from export.target import CPU
from models.checkpoint import Checkpoint
from models.kinds import Int8Form
from models.shape import LayerShape

pytestmark = pytest.mark.slow
LAYERS = (LayerShape(4, 32, 512), LayerShape(3, 32, 257))
VERIFY = """
import json, platform, sys
from dataclasses import asdict
from pathlib import Path
from export.verify import verify_bundle
print(json.dumps({"machine": platform.machine(), **asdict(verify_bundle(Path(sys.argv[1])))}))
"""


@pytest.mark.parametrize("form", [Int8Form.DYNAMIC, Int8Form.STATIC], ids=lambda form: form.value)
def test_an_int8_bundle_is_verified_on_arm(form: Int8Form, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    python = aarch64_python(folder_of(request.config))
    network = quantized_network(random_network(tiny_shape(LAYERS, hidden_size=128)), form)
    checkpoint = Checkpoint(network.shape, {}, tiny_tokenizing()).of(network)
    texts = [" ".join(f"w{2 + (7 * row + 5 * place) % 48}" for place in range(4 + 6 * row)) for row in range(4)]
    examples = [one.inputs for one in checkpoint.tokenizing.encode(texts, max_length=40)]
    write_bundle(tmp_path, Contents.of(checkpoint, graph_file(network, CPU), examples))
    done = subprocess.run([*python, "-c", VERIFY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["machine"] == "aarch64"
    assert report["examples"] == 4
    print(f"{form.value}: largest difference of a logit on aarch64 {report['max_abs']:.2g}")  # noqa: T201
