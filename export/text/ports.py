"""What a graph that has its tokenizer in it is given and gives, by name."""

from __future__ import annotations

from typing import Final

TEXT: Final = "text"
PAIR: Final = "text_pair"
LABEL: Final = "label"  # besides what the network gives
PROBABILITIES: Final = "probabilities"
