"""The tokens that a text may name, such as `[MASK]`: they are found before a tokenizer looks at anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.errors import Unsupported

LEAVE_OUT: Final = "Leave text_in out."


def special_tokens(content: Mapping[str, Any]) -> dict[str, int]:
    """Return the texts of a `tokenizer.json`'s added tokens with their numbers, the longest first, as it finds them.

    Raises:
        Unsupported: one is found in a way that has no form in a graph.
    """
    found = {}
    # Without a normalizer a text is the same before it and behind it.
    unknown = ("single_word", *(["normalized"] if content.get("normalizer") is not None else []))
    for token in content.get("added_tokens") or []:
        kept = [name for name in unknown if token.get(name)]
        if kept:
            raise Unsupported(
                f"the added token {token['content']!r} is looked for with {kept[0]}, which has no form in a graph",
                where="tokenizer.json",
                fix=LEAVE_OUT,
            )
        found[str(token["content"])] = int(token["id"])
    return dict(sorted(found.items(), key=lambda one: -len(one[0])))
