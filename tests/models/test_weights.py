"""Name tables lead back to where they came from, and complain about everything at once."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from support.images import BOXES, TINY, image_shape
from support.networks import PRUNED, WRITES, tiny_shape

from models.errors import BadFile, Unsupported
from models.families import FAMILIES
from models.family import Family
from models.kinds import Biases, Norm, Positions
from models.network import Network
from models.shape import DecoderShape, HeadShape, ModelShape, OutputShape, RelativeBias
from models.weights import Layout, Names, Row

# Shapes in which every row of a family is used.
ALONE: dict[str, Any] = {
    "layers": tuple(replace(layer, causal=True) for layer in PRUNED),
    "output": OutputShape(tied=False),
    "head": None,
    "type_vocab_size": 0,
    "pre_norm": True,
}
BEHIND: dict[str, Any] = {
    **ALONE,
    "layers": PRUNED,
    "decoder": DecoderShape(WRITES),
    "output": OutputShape(tied=False, bias=True),
}
LLAMA: dict[str, Any] = {"norm": Norm.RMS, "gated": True, "positions": Positions.NONE, "embedding_norm": False}
FORMS: dict[str, dict[str, Any]] = {
    "distilbert": {"type_vocab_size": 0},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "modernbert": {
        "type_vocab_size": 0,
        "positions": Positions.NONE,
        "pre_norm": True,
        "gated": True,
        "head": HeadShape(("a", "b"), normed=True),
    },
    "mpnet": {"type_vocab_size": 0, "relative": RelativeBias()},
    "gpt2": {**ALONE, "embedding_norm": False},
    "llama": {**ALONE, **LLAMA, "biases": Biases.NONE},
    "mistral": {**ALONE, **LLAMA},
    "qwen2": {**ALONE, **LLAMA, "biases": Biases.READING},
    "bart": {**BEHIND, "pre_norm": False},
    "mbart": BEHIND,
    "pegasus": {**BEHIND, "positions": Positions.HALVES, "embedding_norm": False},
    "marian": {
        **BEHIND,
        "pre_norm": False,
        "positions": Positions.HALVES,
        "embedding_norm": False,
        "decoder": DecoderShape(WRITES, vocab_size=44),
    },
    "t5": {
        **BEHIND,
        "positions": Positions.NONE,
        "embedding_norm": False,
        "relative": RelativeBias(),
        "norm": Norm.RMS,
        "gated": True,
        "biases": Biases.NONE,
        "output": OutputShape(tied=False),
    },
    "yolos": {"layers": tuple(replace(layer, places=True) for layer in PRUNED), "head": BOXES},
}
OTHER_HEADS = {"yolos": ("head.output.{p}",)}  # beside those of tokens: what a new head for classes is called
LEARNED = {"vit": (1, 0), "deit": (2, 0), "yolos": (1, 3)}  # tokens before and behind the patches
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def shape_of(family: Family, *, head: bool = True) -> ModelShape:
    changes = FORMS.get(family.name, {}) | ({} if head else {"head": None})
    if family.name in LEARNED:
        prefix, suffix = LEARNED[family.name]
        image = replace(TINY, prefix=prefix, suffix=suffix)
        return image_shape(**{"layers": PRUNED, "family": family.name, "image": image, **changes})
    return tiny_shape(**{"layers": PRUNED, "family": family.name, **changes})


def names_of(family: Family, *, head: bool = True) -> list[str]:
    return list(Network(shape_of(family, head=head)).state_dict())


@families
@pytest.mark.parametrize("head", [True, False])
def test_names_lead_back(family: Family, *, head: bool) -> None:
    numbers = {name: number for number, name in enumerate(names_of(family, head=head))}
    shared = {row.ours.format(i=0, p="weight") for row in family.names.rows if _is_shared(row)}
    ours = {
        name: numbers[first] if (first := re.sub(r"\d+", "0", name)) in shared else numbers[name] for name in numbers
    }
    prefixes = {family.prefix, ""}
    for prefix in prefixes:
        theirs = family.names.write(ours, prefix=prefix, form=family.form_of(shape_of(family, head=head)))
        assert len(theirs) == len(set(ours.values()))
        assert family.names.read(theirs, ours, where="here", layout=Layout(len(PRUNED))) == ours


def _is_shared(row: Row) -> bool:
    return "{i}" in row.ours and "{i}" not in row.theirs and "{g}" not in row.theirs


@families
def test_every_row_is_used(family: Family) -> None:
    form = family.form_of(shape_of(family))
    written = family.names.write(dict.fromkeys(names_of(family)), prefix=family.prefix, form=form)
    others = OTHER_HEADS.get(family.name, ())
    rows = {row.ours for row in family.names.rows if not row.tokens and row.ours not in others}
    assert rows == _rows_met(family, written)


def _rows_met(family: Family, written: dict[str, None]) -> set[str]:
    back = family.names.read(written, names_of(family), where="here", layout=Layout(len(PRUNED)))
    templates = set()
    for row in family.names.rows:
        pattern = row.ours.replace("{p}", "weight").replace("{i}", "0")
        if pattern in back or pattern.replace("weight", "bias") in back:
            templates.add(row.ours)
    return templates


def test_missing_and_unknown_names_are_in_one_message() -> None:
    names = Names(rows=(Row("a.{i}.{p}", "layers.{i}.{p}"), Row("b.{p}", "b.{p}", optional=True)), ignored=(r"x\..*",))
    with pytest.raises(BadFile) as caught:
        names.read({"a.0.weight": 1, "c.weight": 2, "x.anything": 3}, ["layers.0.weight", "layers.0.bias"], where="f")
    text = str(caught.value)
    assert text.startswith("f: the checkpoint lacks layers.0.bias and holds")
    assert "c.weight" in text
    assert "x.anything" not in text


def test_long_lists_are_cut() -> None:
    names = Names(rows=(Row("a.{i}.{p}", "layers.{i}.{p}"),))
    with pytest.raises(BadFile, match="and 14 more"):
        names.read({}, [f"layers.{number}.weight" for number in range(20)], where="f")


def test_an_optional_weight_may_be_absent_or_unasked() -> None:
    names = Names(rows=(Row("a.{p}", "a.{p}"), Row("h.{p}", "head.{p}", optional=True)))
    assert names.read({"a.weight": 1}, ["a.weight", "head.weight"], where="f") == {"a.weight": 1}
    assert names.read({"a.weight": 1, "h.weight": 2}, ["a.weight"], where="f") == {"a.weight": 1}


@pytest.mark.parametrize(
    ("groups", "of_layers"), [(1, [0, 0, 0, 0, 0]), (2, [0, 0, 0, 1, 1]), (3, [0, 0, 1, 1, 2]), (5, [0, 1, 2, 3, 4])]
)
def test_layers_of_a_group_share_a_weight(groups: int, of_layers: list[int]) -> None:
    names = Names(rows=(Row("g.{g}.{p}", "layers.{i}.{p}"), Row("all.{p}", "layers.{i}.x.{p}")))
    theirs = {f"g.{group}.bias": group for group in range(groups)} | {"all.weight": 7}
    wanted = [f"layers.{at}.{name}" for at in range(5) for name in ("bias", "x.weight")]
    found = names.read(theirs, wanted, where="f", layout=Layout(groups))
    assert [found[f"layers.{at}.bias"] for at in range(5)] == of_layers
    assert {found[f"layers.{at}.x.weight"] for at in range(5)} == {7}
    assert names.write(found, prefix="") == {f"g.{at}.bias": group for at, group in enumerate(of_layers)} | {
        "all.weight": 7
    }
    with pytest.raises(Unsupported, match="all layers share all.weight"):
        names.write(found | {"layers.3.x.weight": 8}, prefix="")
    with pytest.raises(BadFile, match="lacks"):
        names.read({"all.weight": 7, "g.0.bias": 0}, wanted, where="f", layout=Layout(6))
    with pytest.raises(BadFile, match=r"not of this configuration: g\.9\.bias"):
        names.read(theirs | {"g.9.bias": 9}, wanted, where="f", layout=Layout(groups))


def test_parts_and_the_whole() -> None:
    names = Names(rows=(), fused=(("attn.Wqkv", 3),))
    parts = names.parts("layers.0.attn.Wqkv.bias")
    assert parts == tuple(f"layers.0.attn.Wqkv.{part}.bias" for part in range(3))
    assert {names.whole(part) for part in parts} == {"layers.0.attn.Wqkv.bias"}
    for plain in ("layers.0.attn.Wo.bias", "layers.0.weight", "weight"):
        assert names.parts(plain) == (plain,)
        assert names.whole(plain) == plain


def test_what_a_config_says_is_zero_is_not_wanted() -> None:
    names = Names(rows=(Row("a.{p}", "a.{p}"),))
    layout = Layout(zero=(r"a\.bias",))
    assert names.read({"a.weight": 1}, ["a.weight", "a.bias"], where="f", layout=layout) == {"a.weight": 1}
    with pytest.raises(BadFile, match=r"not of this configuration: a\.bias"):
        names.read({"a.weight": 1, "a.bias": 2}, ["a.weight", "a.bias"], where="f", layout=layout)


def test_a_layer_that_is_not_wanted_is_unknown() -> None:
    names = Names(rows=(Row("a.{i}.{p}", "layers.{i}.{p}"),))
    with pytest.raises(BadFile, match=r"a\.1\.weight"):
        names.read({"a.0.weight": 0, "a.1.weight": 1}, ["layers.0.weight"], where="f")


def test_dots_are_dots() -> None:
    names = Names(rows=(Row("a.b.{p}", "x.{p}"),))
    with pytest.raises(BadFile, match="aXb"):
        names.read({"a.b.weight": 0, "aXb.weight": 1}, ["x.weight"], where="f")


def test_what_the_format_cannot_name_is_listed() -> None:
    names = Names(rows=(Row("a.{p}", "a.{p}"),))
    with pytest.raises(BadFile, match=r"cannot name: b\.weight, c\.weight"):
        names.write({"c.weight": 1, "a.weight": 1, "b.weight": 1}, prefix="")
