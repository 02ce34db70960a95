"""What a format cannot say of a model is named."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.examples import tiny_checkpoint
from support.networks import EVEN, PRUNED, tiny_shape

from models.differences import differences
from models.errors import Unsupported
from models.kinds import Activation, Int8Form, Norm, Positions
from models.shape import HeadShape, LayerShape, RelativeBias


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": PRUNED[:2]}, "layer 0 has 3 heads of 8 and 40 FFN neurons, and layer 1 has 0 heads of 8 and 17"),
        ({"layers": (LayerShape(2, 8, 48),) * 2}, "layer 0 has size of a head 8 instead of 16$"),
        ({"layers": (LayerShape(5, 8, 48),) * 2}, "hidden size 32 is not a multiple of 5 heads"),
        ({"layers": (EVEN[0], replace(EVEN[0], window=3))}, "layer 1 has window 3 instead of none$"),
        ({"layers": (replace(EVEN[0], linear=True),)}, "layer 0 has linear attention yes instead of no$"),
        ({"layers": ()}, "it has no layers$"),
        ({"norm": Norm.RMS}, ": norm rms_norm instead of layer_norm$"),
        ({"positions": Positions.SINUSOIDAL}, ": kind of positions sinusoidal instead of learned$"),
        ({"gated": True, "pre_norm": True}, ": pre norm yes instead of no; gates of the FFN yes instead of no$"),
        ({"position_offset": 2}, ": position offset 2 instead of 0$"),
        ({"activation": Activation.TANH}, "the bert format has no name for tanh"),
        ({"relative": RelativeBias(8, 10)}, "bias for distances .*8.* instead of none$"),
        ({"head": HeadShape(("a", "b"), activation=Activation.GELU)}, "the head has activation gelu instead of tanh$"),
    ],
)
def test_a_refused_shape_says_what_is_the_matter(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    layers = change.pop("layers", EVEN)
    with pytest.raises(Unsupported) as caught:
        tiny_checkpoint(layers, **change).save_hugging_face(tmp_path)
    assert caught.value.what.startswith("the bert format of Hugging Face cannot say what this model is: ")
    assert re.search(says, caught.value.what), caught.value.what
    assert not list(tmp_path.iterdir())


def test_int8_and_many_differences_are_told_in_short() -> None:
    shape = tiny_shape().with_int8({"embeddings.word": Int8Form.TABLE})
    assert differences(shape, tiny_shape()) == "1 of its modules are in int8"
    other = tiny_shape(EVEN[:1], vocab_size=9, max_positions=8, type_vocab_size=0, norm_eps=1e-5, head=None)
    assert differences(tiny_shape(), other) == (
        "2 layers instead of 1; a head; pieces of the vocabulary 50 instead of 9; positions 40 instead of 8; and 2 more"
    )
