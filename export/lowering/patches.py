"""Images as tokens, time first."""

from __future__ import annotations

from export.emit import Emit
from export.values import Value
from models.layers.patches import PatchEmbeddings


def lower_patch_embeddings(module: PatchEmbeddings, emit: Emit, pixels: Value) -> Value:
    """Return (time, batch, hidden) for normalised pixels (batch, channels, height, width).

    Room for the learned tokens is padded around the patches, and they are added with the vectors of the places: one sum
    for both, whatever the batch.
    """
    patches = emit.child(module, "projection", _patches(module, emit, pixels))
    room = emit.integers([module.image.prefix, 0, 0, module.image.suffix, 0, 0], "room")
    padded = emit.node("Pad", patches, room, role="padded")
    added = module.position().clone()
    for number, token in enumerate(module.tokens):
        added[number] += token()[0]
    if module.suffix is not None:
        added[-module.image.suffix :] += module.suffix()
    return emit.node("Add", padded, emit.constant(added[:, None, :].contiguous(), "places"), role="tokens")


def _patches(module: PatchEmbeddings, emit: Emit, pixels: Value) -> Value:
    """Return (patches, batch, channels * size * size)."""
    image, (rows, columns) = module.image, module.image.grid
    size, used = image.patch, (rows * image.patch, columns * image.patch)
    if used != (image.height, image.width):
        ends = [
            emit.integers(numbers, role)
            for numbers, role in (([0, 0], "start"), (list(used), "used"), ([2, 3], "height_and_width"))
        ]
        pixels = emit.node("Slice", pixels, *ends, role="used_pixels")
    apart = emit.integers([0, image.channels, rows, size, columns, size], "apart")
    squares = emit.node("Reshape", pixels, apart, role="squares")
    turned = emit.node("Transpose", squares, role="squares_by_place", perm=[2, 4, 0, 1, 3, 5])
    joined = emit.integers([rows * columns, -1, image.patch_values], "joined")
    return emit.node("Reshape", turned, joined, role="patches")
