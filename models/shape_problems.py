"""What a shape must be, for a network to be built from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.shape import DecoderShape, HeadShape, ImageShape, LayerShape, ModelShape, OutputShape, RelativeBias

# Every layer is a record of its own: a number read from a file must not fill the memory with them.
MAX_LAYERS = 1024
MAX_PIXELS = 4096  # of an image's height and width
EACH, MEAN, SUFFIX = "each", "mean", "suffix"  # of what a head reads


def problems_of(shape: ModelShape) -> list[str]:
    """Return what is wrong with a shape, in words; nothing where a network can be built from it."""
    sizes = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "embedding_size": shape.embedding_width,
        "usable positions": shape.usable_positions,
        "type_vocab_size": shape.type_vocab_size,
        "pad_token_id": shape.pad_token_id,
        **{
            f"layer {index} {name}": getattr(layer, name)
            for index, layer in enumerate(shape.layers)
            for name in ("heads", "head_size", "ffn")
        },
    }
    # A layer may keep no head or no neuron at all: the sublayer is then its output bias alone.
    zero_allowed = {f"layer {index} {name}" for index in range(len(shape.layers)) for name in ("heads", "ffn")}
    zero_allowed |= {"type_vocab_size", "pad_token_id", *(["vocab_size"] if shape.image else [])}
    wrong = [
        f"{name} is {size}" for name, size in sizes.items() if not isinstance(size, int) or size < 0 or size > 1 << 24
    ]
    wrong += [f"{name} is 0" for name, size in sizes.items() if size == 0 and name not in zero_allowed]
    wrong += [] if shape.image is None else _image_problems(shape.image, positions=shape.max_positions)
    wrong += [f"{len(shape.layers)} layers are more than {MAX_LAYERS}"] if len(shape.layers) > MAX_LAYERS else []
    wrong += [
        problem for index, layer in enumerate(shape.layers) for problem in _layer_problems(f"layer {index}", layer)
    ]
    wrong += _writing_problems(shape)
    wrong += ["only a pre-norm layer may be without a norm"] if not _all_normed(shape) and not shape.pre_norm else []
    if shape.image is None and any(layer.places for layer in shape.layers):
        wrong.append("only a network of images may add the vectors of places in its layers")
    wrong += _relative_problems(shape.relative, one_way=shape.output is not None)
    shares = {"dropout": shape.dropout, "attention_dropout": shape.attention_dropout}
    shares |= {} if shape.head is None else {"head dropout": shape.head.dropout}
    wrong += [f"{name} is {share}" for name, share in shares.items() if not _is_number(share) or not 0 <= share <= 1]
    positive = {
        "norm_eps": shape.norm_eps,
        "initializer_range": shape.initializer_range,
        "embedding_scale": shape.embedding_scale,
        "attention_scale": 1.0 if shape.attention_scale is None else shape.attention_scale,
    }
    wrong += [f"{name} is {value}" for name, value in positive.items() if not _is_number(value) or not 0 <= value < 1e3]
    stated = {"pre_norm": shape.pre_norm, "gated": shape.gated, "embedding_norm": shape.embedding_norm}
    wrong += [f"{name} is {value!r}" for name, value in stated.items() if not isinstance(value, bool)]
    wrong += [] if isinstance(shape.family, str) else [f"family is {shape.family!r}"]
    if shape.head is not None and len(set(shape.head.labels)) != len(shape.head.labels):
        wrong.append("a label is named twice")
    if shape.head is not None and shape.head.reads.value == SUFFIX and not (shape.image and shape.image.suffix):
        wrong.append("the head reads learned tokens behind an image's patches, and there are none")
    if shape.head is not None and not _may_read(shape.head):
        wrong.append(f"a head {'with' if shape.head.labels else 'without'} labels reads {shape.head.reads.value}")
    wrong += [] if shape.head is None else _width_problems(shape.head, hidden_size=shape.hidden_size)
    return wrong


def _width_problems(head: HeadShape, *, hidden_size: int) -> list[str]:
    if head.labels:
        return ["a head with labels is not projected"] if head.projected else []
    if not head.width:
        return ["a head needs an output"]
    known = 0 < head.width <= 1 << 24 if head.projected else head.width == hidden_size
    return [] if _is_whole(head.width) and known else [f"the embedding is {head.width} wide"]


def _may_read(head: HeadShape) -> bool:
    if head.boxes or head.reads.value == SUFFIX:
        return head.boxes and head.reads.value == SUFFIX and bool(head.labels)
    if not head.labels:
        return head.reads.value != EACH
    return head.normed or not head.dense or head.reads.value != MEAN


def _all_normed(shape: ModelShape) -> bool:
    return all(layer.normed for layer in shape.layers)


def _layer_problems(name: str, layer: LayerShape) -> list[str]:
    wrong = []
    if layer.window is not None and not (isinstance(layer.window, int) and 0 <= layer.window <= 1 << 24):
        wrong.append(f"{name} window is {layer.window!r}")
    if not (_is_whole(layer.global_tokens) and 0 <= layer.global_tokens <= 1 << 24):
        wrong.append(f"{name} global_tokens is {layer.global_tokens!r}")
    elif layer.global_tokens and layer.window is None:
        wrong.append(f"{name} has global tokens, and no window that they are seen beyond")
    if not isinstance(layer.linear, bool):
        wrong.append(f"{name} linear is {layer.linear!r}")
    elif layer.linear and layer.window is not None:
        wrong.append(f"{name} is linear, which has no window")
    if layer.rotary is not None and not (_is_number(layer.rotary) and 1 <= layer.rotary <= 1e12):
        wrong.append(f"{name} rotary is {layer.rotary!r}")
    if layer.rotary is not None and isinstance(layer.head_size, int) and layer.head_size % 2:
        wrong.append(f"{name} turns pairs of features, and head_size is {layer.head_size}")
    if not isinstance(layer.normed, bool) or not isinstance(layer.places, bool):
        wrong.append(f"{name} normed is {layer.normed!r} and places is {layer.places!r}")
    return wrong + _order_problems(name, layer)


def _order_problems(name: str, layer: LayerShape) -> list[str]:
    wrong = []
    if not isinstance(layer.causal, bool):
        wrong.append(f"{name} causal is {layer.causal!r}")
    elif layer.causal and (layer.window is not None or layer.linear):
        wrong.append(f"{name} is causal, which has no window and is not linear")
    if layer.kv_heads is not None and not _groups(layer.heads, layer.kv_heads):
        wrong.append(f"{name} has {layer.heads} heads for {layer.kv_heads} of keys and values")
    if layer.cross_heads is not None and not (_is_whole(layer.cross_heads) and 0 <= layer.cross_heads <= 1 << 24):
        wrong.append(f"{name} cross_heads is {layer.cross_heads!r}")
    return wrong


def _groups(heads: int, kv_heads: int) -> bool:
    """Return whether every head of keys and values serves equally many queries, at least one."""
    if not _is_whole(heads) or not _is_whole(kv_heads) or kv_heads < 1:
        return heads == 0 and kv_heads == 0
    return heads >= kv_heads and heads % kv_heads == 0


def _writing_problems(shape: ModelShape) -> list[str]:
    """Return what does not fit together in what writes, and what reads for it."""
    decoder, output = shape.decoder, shape.output
    causal = [layer.causal for layer in shape.layers]
    crossing = any(layer.cross_heads is not None for layer in shape.layers)
    wrong = ["only layers behind an encoder have cross_heads"] if crossing else []
    if output is None:
        wrong += ["layers are causal, and nothing is written"] if any(causal) else []
        return [*wrong, *(["a decoder without an output"] if decoder is not None else [])]
    wrong += _output_problems(output, narrow=shape.embedding_size is not None)
    wrong += ["a model that writes has no head"] if shape.head is not None else []
    if decoder is None:
        return [*wrong, *([] if all(causal) else ["what writes has a layer that is not causal"])]
    wrong += ["an encoder has a causal layer"] if any(causal) else []
    return wrong + _decoder_problems(decoder)


def _decoder_problems(decoder: DecoderShape) -> list[str]:
    wrong = [] if all(layer.causal for layer in decoder.layers) else ["the decoder has a layer that is not causal"]
    wrong += [f"{len(decoder.layers)} layers are more than {MAX_LAYERS}"] if len(decoder.layers) > MAX_LAYERS else []
    sizes = {"vocab_size": 1 if decoder.vocab_size is None else decoder.vocab_size}
    for index, layer in enumerate(decoder.layers):
        sizes |= {f"layer {index} {name}": getattr(layer, name) for name in ("heads", "head_size", "ffn")}
        wrong += _layer_problems(f"decoder layer {index}", layer)
    for name, size in sizes.items():
        least = 0 if name.endswith(("heads", "ffn")) else 1
        wrong += [] if _is_whole(size) and least <= size <= 1 << 24 else [f"decoder {name} is {size!r}"]
    return wrong


def _output_problems(output: OutputShape, *, narrow: bool) -> list[str]:
    wrong = [] if _is_number(output.scale) and 0 < output.scale < 1e3 else [f"output scale is {output.scale!r}"]
    stated = {"tied": output.tied, "bias": output.bias}
    wrong += [f"output {name} is {value!r}" for name, value in stated.items() if not isinstance(value, bool)]
    wrong += [] if isinstance(output.task, str) else [f"output task is {output.task!r}"]
    return wrong + (["words are written by a table narrower than the network"] if narrow and output.tied else [])


def _relative_problems(relative: RelativeBias | None, *, one_way: bool) -> list[str]:
    if relative is None:
        return []
    buckets, distance = relative.buckets, relative.max_distance
    whole = all(isinstance(size, int) and 0 < size <= 1 << 16 for size in (buckets, distance))
    # A quarter of the buckets, one way half, is for one distance each; the logarithm of the others must rise.
    if whole and buckets >= 4 and distance > buckets // (2 if one_way else 4):
        return []
    return [f"{buckets} buckets for relative distances up to {distance}"]


def _image_problems(image: ImageShape, *, positions: int) -> list[str]:
    sizes = {name: getattr(image, name) for name in ("height", "width", "patch", "channels", "prefix", "suffix")}
    wrong = [
        f"image {name} is {size}"
        for name, size in sizes.items()
        if not isinstance(size, int) or not int(name not in ("prefix", "suffix")) <= size <= MAX_PIXELS
    ]
    if not wrong and not all(image.grid):
        wrong = [f"an image of {image.height} x {image.width} pixels holds no patch of {image.patch}"]
    if not wrong and image.tokens != positions:
        return [f"{positions} positions for an image of {image.tokens} tokens"]
    return wrong


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
