"""Every size of a network, per layer, as frozen data. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from models.errors import BadFile, BadInput

# Every layer is a record of its own: a number read from a file must not fill the memory with them.
MAX_LAYERS = 1024
MAX_PIXELS = 4096  # of an image's height and width
CLASSIFICATION = "text-classification"  # what a head does that does not say it


class Activation(str, Enum):
    """What stands between two linear layers."""

    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"
    SILU = "silu"
    TANH = "tanh"


class Norm(str, Enum):
    """How a residual sum is normalised. ELEMENTWISE is MobileBERT's NoNorm: x * weight + bias."""

    LAYER = "layer_norm"
    RMS = "rms_norm"
    ELEMENTWISE = "elementwise"


class Positions(str, Enum):
    """Where position vectors come from. NONE: nothing is added to a word's vector, and attention knows the places."""

    LEARNED = "learned"
    SINUSOIDAL = "sinusoidal"
    NONE = "none"


class Reads(str, Enum):
    """What a head makes its answer of: the first token, each token for itself, or the mean of all."""

    FIRST = "first"
    EACH = "each"
    MEAN = "mean"


class Int8Form(str, Enum):
    """How a module is kept in whole numbers: int8 with an activation scale per call or from calibration, or a table in
    8, 4 or 2 bits.
    """

    DYNAMIC = "dynamic"
    STATIC = "static"
    TABLE = "table"
    TABLE4 = "table4"
    TABLE2 = "table2"


TABLES = (Int8Form.TABLE, Int8Form.TABLE4, Int8Form.TABLE2)


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """What attention adds to a score for the distance of two tokens: one number per head for each of `buckets` ranges
    of distances, half of them for each direction. From `max_distance` on all distances are one.
    """

    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One Transformer block: `heads` heads of `head_size`, and an FFN of `ffn` neurons.

    With `window` a token attends to so many on each side alone, and to the first `global_tokens`, which attend to all.
    With `rotary` queries and keys are turned by their places; this is the base of the wavelengths. Without `normed`
    attention reads the stream as it is. With `linear` what is read is summed once for all readers (Katharopoulos et al.
    2020), without a softmax; a bias for distances has no place in it.
    """

    heads: int
    head_size: int
    ffn: int
    window: int | None = None
    rotary: float | None = None
    normed: bool = True
    global_tokens: int = 0
    linear: bool = False

    @property
    def attention(self) -> str:
        """Return how its tokens read, in words."""
        if self.window is None:
            return "linear" if self.linear else "full"
        return f"window {self.window}" + (f", global tokens {self.global_tokens}" if self.global_tokens else "")

    @property
    def attention_width(self) -> int:
        """Return heads x head_size."""
        return self.heads * self.head_size


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What a network reads in place of token numbers: pixels (channels, height, width), in squares of `patch` pixels
    each way, behind `prefix` learned tokens. Pixels that fill no square are not read.
    """

    height: int
    width: int
    patch: int
    channels: int = 3
    prefix: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        """Return the number of rows and columns of patches."""
        side = max(1, self.patch)  # what is no size is said when a network's shape is made
        return self.height // side, self.width // side

    @property
    def tokens(self) -> int:
        """Return how many tokens an image has, learned ones included."""
        rows, columns = self.grid
        return self.prefix + rows * columns

    @property
    def patch_values(self) -> int:
        """Return how many numbers a patch has."""
        return self.channels * self.patch * self.patch


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What gives an answer, one output per label: of the first token by dense, activation and output, or of each token
    by the output alone. With `normed` it is dense, activation, norm and output, of the first token, the mean or each
    token; without `dense` the output alone, of the first token or the mean. Without labels it is what is read itself,
    `width` numbers, of length 1 where `normalized`. `task` names what the outputs mean.
    """

    labels: tuple[str, ...]
    activation: Activation = Activation.TANH
    dropout: float = 0.1
    task: str = CLASSIFICATION
    reads: Reads = Reads.FIRST
    width: int = 0
    normalized: bool = False
    normed: bool = False
    dense: bool = True

    @property
    def tokens(self) -> bool:
        """Return whether there is an answer for each token."""
        return self.reads is Reads.EACH

    @property
    def outputs(self) -> int:
        """Return how many numbers an answer has."""
        return len(self.labels) or self.width


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Everything needed to build a network of the right size.

    `family` names the checkpoint format it came from. Positions are numbered from `position_offset`. With
    `embedding_size` the embedding tables have that width, and a projection leads to the hidden size. With `relative`
    every layer has a table of its own for the distances between tokens. With `gated` each FFN neuron is multiplied by
    a second one. With `image` the network reads pixels; there is no vocabulary then, and a position for each of the
    image's tokens. `int8` lists (module path, form) for every quantized module, sorted by path.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerShape, ...]
    max_positions: int = 512
    position_offset: int = 0
    positions: Positions = Positions.LEARNED
    type_vocab_size: int = 0
    activation: Activation = Activation.GELU
    norm: Norm = Norm.LAYER
    norm_eps: float = 1e-12
    pre_norm: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0
    head: HeadShape | None = None
    int8: tuple[tuple[str, Int8Form], ...] = ()
    embedding_size: int | None = None
    relative: RelativeBias | None = None
    gated: bool = False
    image: ImageShape | None = None

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise BadInput("; ".join(problems), where=f"shape of a {self.family} model")

    @property
    def usable_positions(self) -> int:
        """Return the longest text, in tokens, that the positions allow."""
        return self.max_positions - self.position_offset

    @property
    def embedding_width(self) -> int:
        """Return the width of the embedding tables."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names, or nothing for a model without a head."""
        return () if self.head is None else self.head.labels

    @property
    def outputs(self) -> int:
        """Return how many numbers an answer has; without a head, a hidden state."""
        return self.hidden_size if self.head is None else self.head.outputs

    @property
    def answers_tokens(self) -> bool:
        """Return whether there is an answer for each token."""
        return self.head is not None and self.head.tokens

    @property
    def reads_first(self) -> bool:
        """Return whether the head reads the first token alone, so that the last layer computes no other."""
        return self.head is not None and self.head.reads is Reads.FIRST

    @property
    def int8_forms(self) -> dict[str, Int8Form]:
        """Return module path -> form of the quantized modules."""
        return dict(self.int8)

    def with_layer(self, index: int, layer: LayerShape) -> ModelShape:
        """Return the shape with one layer replaced."""
        return replace(self, layers=(*self.layers[:index], layer, *self.layers[index + 1 :]))

    def with_int8(self, forms: dict[str, Int8Form]) -> ModelShape:
        """Return the shape with these modules quantized."""
        return replace(self, int8=tuple(sorted(forms.items())))

    def to_json(self) -> dict[str, Any]:
        """Return the shape as a JSON object."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> ModelShape:
        """Return the shape written by `to_json`.

        Raises:
            BadFile: a key is missing or unknown, or a value is of the wrong type.
        """
        try:
            known = dict(value)
            layers = tuple(LayerShape(**layer) for layer in known.pop("layers"))
            head = known.pop("head")
            int8 = tuple((str(path), Int8Form(form)) for path, form in known.pop("int8"))
            relative = known.pop("relative", None)  # younger than the format, as are embedding_size and image
            parts: dict[str, Any] = {
                "image": ImageShape(**image) if (image := known.pop("image", None)) else None,
                "positions": Positions(known.pop("positions")),
                "activation": Activation(known.pop("activation")),
                "norm": Norm(known.pop("norm")),
                "relative": None if relative is None else RelativeBias(**relative),
            }
            return ModelShape(**known, **parts, layers=layers, head=_head(head), int8=int8)
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile(f"not the shape of a model ({error})", where="model.json") from None


def _head(value: dict[str, Any] | None) -> HeadShape | None:
    if value is None:
        return None
    return HeadShape(
        labels=tuple(value["labels"]),
        activation=Activation(value["activation"]),
        dropout=value["dropout"],
        task=str(value.get("task", CLASSIFICATION)),
        reads=Reads(value.get("reads", Reads.FIRST)),
        width=int(value.get("width", 0)),
        normalized=bool(value.get("normalized", False)),
        normed=bool(value.get("normed", False)),
        dense=bool(value.get("dense", True)),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _problems(shape: ModelShape) -> list[str]:
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
    wrong += [problem for index, layer in enumerate(shape.layers) for problem in _layer_problems(index, layer)]
    wrong += ["only a pre-norm layer may be without a norm"] if not _all_normed(shape) and not shape.pre_norm else []
    wrong += _relative_problems(shape.relative)
    shares = {"dropout": shape.dropout, "attention_dropout": shape.attention_dropout}
    shares |= {} if shape.head is None else {"head dropout": shape.head.dropout}
    wrong += [f"{name} is {share}" for name, share in shares.items() if not _is_number(share) or not 0 <= share <= 1]
    positive = {"norm_eps": shape.norm_eps, "initializer_range": shape.initializer_range}
    wrong += [f"{name} is {value}" for name, value in positive.items() if not _is_number(value) or not 0 <= value < 1e3]
    if not isinstance(shape.family, str) or not isinstance(shape.pre_norm, bool) or not isinstance(shape.gated, bool):
        wrong.append(f"family is {shape.family!r}, pre_norm is {shape.pre_norm!r} and gated is {shape.gated!r}")
    if shape.head is not None and len(set(shape.head.labels)) != len(shape.head.labels):
        wrong.append("a label is named twice")
    if shape.head is not None and not _may_read(shape.head):
        wrong.append(f"a head {'with' if shape.head.labels else 'without'} labels reads {shape.head.reads.value}")
    if shape.head is not None and not shape.head.labels and shape.head.width != shape.hidden_size:
        wrong.append("a head needs an output" if not shape.head.width else f"the embedding is {shape.head.width} wide")
    return wrong


def _may_read(head: HeadShape) -> bool:
    if not head.labels:
        return head.reads is not Reads.EACH
    return head.normed or not head.dense or head.reads is not Reads.MEAN


def _all_normed(shape: ModelShape) -> bool:
    return all(layer.normed for layer in shape.layers)


def _layer_problems(index: int, layer: LayerShape) -> list[str]:
    wrong = []
    if layer.window is not None and not (isinstance(layer.window, int) and 0 <= layer.window <= 1 << 24):
        wrong.append(f"layer {index} window is {layer.window!r}")
    if not (_is_whole(layer.global_tokens) and 0 <= layer.global_tokens <= 1 << 24):
        wrong.append(f"layer {index} global_tokens is {layer.global_tokens!r}")
    elif layer.global_tokens and layer.window is None:
        wrong.append(f"layer {index} has global tokens, and no window that they are seen beyond")
    if not isinstance(layer.linear, bool):
        wrong.append(f"layer {index} linear is {layer.linear!r}")
    elif layer.linear and layer.window is not None:
        wrong.append(f"layer {index} is linear, which has no window")
    if layer.rotary is not None and not (_is_number(layer.rotary) and 1 <= layer.rotary <= 1e12):
        wrong.append(f"layer {index} rotary is {layer.rotary!r}")
    if layer.rotary is not None and isinstance(layer.head_size, int) and layer.head_size % 2:
        wrong.append(f"layer {index} turns pairs of features, and head_size is {layer.head_size}")
    if not isinstance(layer.normed, bool):
        wrong.append(f"layer {index} normed is {layer.normed!r}")
    return wrong


def _relative_problems(relative: RelativeBias | None) -> list[str]:
    if relative is None:
        return []
    buckets, distance = relative.buckets, relative.max_distance
    whole = all(isinstance(size, int) and 0 < size <= 1 << 16 for size in (buckets, distance))
    # A quarter of the buckets is for one distance each; the logarithm of the others must rise.
    if whole and buckets >= 4 and distance > buckets // 4:
        return []
    return [f"{buckets} buckets for relative distances up to {distance}"]


def _image_problems(image: ImageShape, *, positions: int) -> list[str]:
    sizes = {name: getattr(image, name) for name in ("height", "width", "patch", "channels", "prefix")}
    wrong = [
        f"image {name} is {size}"
        for name, size in sizes.items()
        if not isinstance(size, int) or not int(name != "prefix") <= size <= MAX_PIXELS
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


_E = TypeVar("_E", bound=Enum)


def member(kind: type[_E], name: str, aliases: dict[str, _E], *, where: str) -> _E:
    """Return the enumeration member for a foreign name.

    Raises:
        BadInput: the name is not among `aliases`.
    """
    if name not in aliases:
        raise BadInput(
            f"{kind.__name__.lower()} {name!r} is not supported", where=where, fix=f"Known: {sorted(aliases)}."
        )
    return aliases[name]
