"""Byte-level BPE in a graph: the operator of onnxruntime-extensions, with what it leaves out put right before it.

It ends a text at a NUL, and takes blanks before a token such as `<mask>` for a part of the text. Its table of letters
is of an older Unicode; what that changes is found by comparison, as few vocabularies have pieces across such letters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from export.emit import Emit
from export.text.expressions import cut, quoted
from export.text.special_tokens import LEAVE_OUT, special_tokens
from export.values import CONTRIB, LEARNING, Value
from models.errors import Unsupported

# Which tokens an operator takes for special whatever it is told, and whether it puts some around a text.
_OPERATORS: Final = (
    ("RobertaTokenizer", frozenset({"<s>", "</s>", "<unk>", "<pad>"}), 1),
    ("GPT2Tokenizer", frozenset({"<|endoftext|>"}), 0),
)
_NUL_SIGN: Final = "\U0010ffff"  # the last code point, which is no character and never will be one
_STRINGS: Final = {"sign": _NUL_SIGN, "nothing": ""}
_NUL_PIECE: Final = "\u0100"  # how byte-level vocabularies write the byte 0
_BLANK: Final = r"[\t-\r\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]"
# The operator leaves out a first merge that begins with `#`: this one joins what no text has.
_FIRST_MERGE: Final = "<no> <piece>"
_INT64, _STRING = 7, 8  # of onnx.TensorProto


def byte_pairs(emit: Emit, text: Value, content: Mapping[str, Any]) -> Value:
    """Return the token numbers (tokens,) of `text` (1,), whole and without special tokens around it, as the tokenizer
    of this `tokenizer.json` has them.

    Raises:
        Unsupported: it normalizes texts or cuts them into words in a way that has no form here.
    """
    _require_plain(content)
    model, special = content["model"], special_tokens(content)
    operator, around = next(((name, extra) for name, known, extra in _OPERATORS if known <= special.keys()), (None, 0))
    if operator is None:
        raise Unsupported("its special tokens are neither RoBERTa's nor GPT-2's", where="tokenizer.json", fix=LEAVE_OUT)
    text = _without_nul(emit, text)
    for token in content["added_tokens"]:
        if token.get("lstrip"):
            text = _replaced(emit, text, f"{_BLANK}+({quoted(str(token['content']))})", r"\1")
    numbers = {**special, _NUL_SIGN: int(model["vocab"][_NUL_PIECE])}
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    (row,) = emit.of_domain(
        CONTRIB,
        operator,
        text,
        roles=("row",),
        vocab=json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":")),
        merges="\n".join([_FIRST_MERGE, *merges]),
        added_token="\n".join(f"{token}={number}" for token, number in numbers.items()),
    )
    typed = emit.node("Cast", row, role="row_typed", to=_INT64)
    tokens = emit.node("Reshape", typed, emit.integers([-1], "shape"), role="tokens")
    if not around:
        return tokens
    first, end = emit.integers([around], "first"), emit.integers([-around], "end")
    return emit.node("Slice", tokens, first, end, role="inner_tokens")


def _without_nul(emit: Emit, text: Value) -> Value:
    """Return a text (1,) with a sign in the place of every NUL: an operator of the extensions reads no further."""
    parts = cut(emit, text, r"\x{0}|[^\x{0}]+", role="parts")
    typed = emit.node("Cast", parts, role="parts_typed", to=_STRING)
    (found,) = emit.of_domain(
        LEARNING, "LabelEncoder", typed, roles=("nul",), keys_strings=["\0"], values_int64s=[1], default_int64=0
    )
    is_nul = emit.node("Greater", found, emit.integers([0], "zero"), role="is_nul")
    sign, nothing = (emit.node("Constant", role=role, value_strings=[one]) for role, one in _STRINGS.items())
    signed = emit.node("Where", is_nul, sign, typed, role="signed")
    axis = emit.integers([1], "axis")
    (joined,) = emit.of_domain(CONTRIB, "StringJoin", signed, nothing, axis, roles=("joined",))
    return joined


def _replaced(emit: Emit, text: Value, pattern: str, by: str) -> Value:
    parts = (emit.node("Constant", role=role, value_string=one) for role, one in (("pattern", pattern), ("by", by)))
    (result,) = emit.of_domain(CONTRIB, "StringRegexReplace", text, *parts, roles=("replaced",), global_replace=1)
    return result


def _require_plain(content: Mapping[str, Any]) -> None:
    model, cutter = content["model"], content.get("pre_tokenizer") or {}
    normalizer = (content.get("normalizer") or {}).get("type")
    reasons = {
        f"it normalizes texts ({normalizer}), and byte-level BPE has no operator for that": normalizer is not None,
        f"it cuts texts into words by {cutter.get('type')}": cutter.get("type") != "ByteLevel",
        "it cuts texts into words without GPT-2's expression": cutter.get("use_regex") is False,
        "it puts a blank before a text": bool(cutter.get("add_prefix_space")),
        "its vocabulary does not have all bytes": _NUL_PIECE not in model["vocab"],
        "its pieces have marks": any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")),
        "it takes blanks behind a special token away": any(one.get("rstrip") for one in content["added_tokens"]),
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unsupported(reason, where="tokenizer.json", fix=LEAVE_OUT)
