"""A model that translates, of a size that people deploy and with weights that are drawn, to time and not to read.

    python benchmarks/drawn_writer.py --data train.en.gz --label de --out DIR
    python benchmarks/generation.py --checkpoint DIR --data train.en.gz --label de --texts 6 --longest 20 --threads 1

By default it is as large as Marian's of OPUS-MT (6 and 6 layers, 512 wide) with the words that the data has. No word
ends a text, so that every text is as long as is asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compress.architectures import new_network
from compress.settings import ArchitectureSettings
from models.checkpoint import Checkpoint
from models.columns import Wanted
from models.files import new_directory
from models.parallel import read_written

HEAD_SIZE = 64
NEVER = -50.0  # added to the logits of what ends a text


def drawn(settings: ArchitectureSettings, data: Wanted, cache: Path) -> Checkpoint:
    """Return a checkpoint of a Marian whose tokenizer is learnt from the texts of both sides."""
    made = new_network(settings, read_written(data), None, cache)
    assert made.generation is not None
    checkpoint = Checkpoint.new(made.shape, made.reader, seed=0, generation=made.generation)
    checkpoint.weights["output.bias"][list(made.generation.end)] = NEVER
    return checkpoint


def main(words: Sequence[str] | None = None) -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="texts that the tokenizer is learnt from")
    parser.add_argument("--label", help="column, or ending of the file beside, that holds the other side")
    parser.add_argument("--layers", type=int, default=6, help="that read, and as many that write")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--words", type=int, default=32_000, help="at most so many, if the data has them")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(words)
    settings = ArchitectureSettings(
        family="marian",
        layers=given.layers,
        hidden_size=given.width,
        heads=max(1, given.width // HEAD_SIZE),
        ffn=4 * given.width,
        activation="relu",
        vocab_size=given.words,
    )
    with tempfile.TemporaryDirectory() as cache, new_directory(given.out) as out:
        checkpoint = drawn(settings, Wanted(given.data, label=given.label), Path(cache))
        checkpoint.save(out)
    print(f"{checkpoint.shape.vocab_size} words, {checkpoint.parameters / 1e6:.1f} M weights")


if __name__ == "__main__":
    main()
