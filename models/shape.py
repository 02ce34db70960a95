"""Every size of a network, per layer, as frozen data. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from models.errors import BadFile, BadInput
from models.kinds import Activation, Biases, Int8Form, Norm, Positions, Reads
from models.shape_problems import problems_of

CLASSIFICATION = "text-classification"  # what a head does that does not say it
EVERY_TOKEN = slice(None)
FIRST_TOKEN = slice(0, 1)
BOX = 4  # numbers of a box: its centre, width and height
GENERATION = "text-generation"  # what a model writes that does not say it


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """What attention adds to a score for the distance of two tokens: one number per head for each of `buckets` ranges
    of distances, half of them for each direction, or in a causal layer all for what lies before. From `max_distance` on
    all distances are one.
    """

    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One Transformer block: `heads` heads of `head_size`, and an FFN of `ffn` neurons.

    With `window` a token attends to so many on each side alone, and to the first `global_tokens`, which attend to all.
    With `rotary` queries and keys are turned by their places; this is the base of the wavelengths. Without `normed`
    attention reads the stream as it is. With `linear` what is read is summed once for all readers (Katharopoulos et al.
    2020), without a softmax; a bias for distances has no place in it. With `places` a learned vector is added for every
    place before the layer reads.

    In a `causal` layer a token attends to itself and to what stands before. With `kv_heads` so many heads of keys and
    values serve all queries, equally many each (Ainslie et al. 2023); else every query has its own. With `cross_heads`
    so many heads of `head_size` read an encoder's states, between the two sublayers; without, the layer reads none.
    """

    heads: int
    head_size: int
    ffn: int
    window: int | None = None
    rotary: float | None = None
    normed: bool = True
    global_tokens: int = 0
    linear: bool = False
    places: bool = False
    causal: bool = False
    kv_heads: int | None = None
    cross_heads: int | None = None

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

    @property
    def key_heads(self) -> int:
        """Return how many heads keys and values have."""
        return self.heads if self.kv_heads is None else self.kv_heads


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What a network reads in place of token numbers: pixels (channels, height, width), in squares of `patch` pixels
    each way, between `prefix` and `suffix` learned tokens. Pixels that fill no square are not read.
    """

    height: int
    width: int
    patch: int
    channels: int = 3
    prefix: int = 1
    suffix: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Return the number of rows and columns of patches."""
        side = max(1, self.patch)  # what is no size is said when a network's shape is made
        return self.height // side, self.width // side

    @property
    def tokens(self) -> int:
        """Return how many tokens an image has, learned ones included."""
        rows, columns = self.grid
        return self.prefix + rows * columns + self.suffix

    @property
    def patch_values(self) -> int:
        """Return how many numbers a patch has."""
        return self.channels * self.patch * self.patch


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What gives an answer, one output per label: of the first token by dense, activation and output, or of each token
    by the output alone. With `normed` it is dense, activation, norm and output, of the first token, the mean or each
    token; without `dense` the output alone, of the first token or the mean. Without labels it is what is read itself,
    `width` numbers, of length 1 where `normalized`; where `projected`, a fixed linear map of what is read. With `boxes`
    each of the tokens that it reads has two answers, of three linear layers each: one output per label and one for
    nothing, and a box as shares of the image, its centre, width and height. `task` names what the outputs mean.
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
    projected: bool = False
    boxes: bool = False

    def unlike(self, task: str) -> str | None:
        """Return the advice that this head is for another task than the one asked for, where it is."""
        return None if self.task == task else f"Its own task is {self.task}."

    @property
    def tokens(self) -> bool:
        """Return whether there is an answer for each token."""
        return self.reads is Reads.EACH

    @property
    def outputs(self) -> int:
        """Return how many numbers an answer has."""
        return len(self.labels) + 1 + BOX if self.boxes else len(self.labels) or self.width


@dataclass(frozen=True, slots=True)
class OutputShape:
    """What makes logits of words of the last states: `scale` times the states, times the rows of the word table that
    the writer reads (`tied`) or of a matrix of its own, plus a number for each word (`bias`). `task` names what is
    written.
    """

    tied: bool = True
    scale: float = 1.0
    bias: bool = False
    task: str = GENERATION


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What writes behind an encoder: causal layers that read the encoder's states. It has positions of its own, and
    with `vocab_size` a word table of its own; else it reads the encoder's.
    """

    layers: tuple[LayerShape, ...]
    vocab_size: int | None = None


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Everything needed to build a network of the right size.

    `family` names the checkpoint format it came from. Positions are numbered from `position_offset`. With
    `embedding_size` the embedding tables have that width, and a projection leads to the hidden size. With `relative`
    every layer has a table of its own for the distances between tokens. With `gated` each FFN neuron is multiplied by
    a second one. With `image` the network reads pixels; there is no vocabulary then, and a position for each of the
    image's tokens. `int8` lists (module path, form) for every quantized module, sorted by path.

    A model that writes has an `output`. With a `decoder`, `layers` are the encoder's that it reads; without, `layers`
    are causal and write themselves. Vectors of words are multiplied by `embedding_scale`, and normalised once summed
    where `embedding_norm`; scores of attention are multiplied by `attention_scale`, or by 1 / sqrt(head_size).
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
    decoder: DecoderShape | None = None
    output: OutputShape | None = None
    biases: Biases = Biases.ALL
    attention_scale: float | None = None
    embedding_scale: float = 1.0
    embedding_norm: bool = True

    def __post_init__(self) -> None:
        problems = problems_of(self)
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
        """Return how many numbers an answer has: a head's, the words that can be written, or those of a state."""
        if self.output is not None:
            return self.written_words
        return self.hidden_size if self.head is None else self.head.outputs

    @property
    def written_table(self) -> str:
        """Return the module path of the table that what writes reads its own words from."""
        own = None if self.decoder is None else self.decoder.vocab_size
        return "embeddings.word" if own is None else "decoder.embeddings.word"

    @property
    def written_words(self) -> int:
        """Return how many words the table has that what writes reads its own words from."""
        own = None if self.decoder is None else self.decoder.vocab_size
        return self.vocab_size if own is None else own

    @property
    def writing_layers(self) -> tuple[LayerShape, ...]:
        """Return the layers that write, one cache of keys and values each; none where the model does not write."""
        stack = self.layers if self.decoder is None else self.decoder.layers
        return () if self.output is None else stack

    @property
    def answers_tokens(self) -> bool:
        """Return whether there is an answer for each token."""
        return self.output is not None or (self.head is not None and self.head.tokens)

    @property
    def answers(self) -> int | None:
        """Return how many answers there are for a row; None where there is one for each token."""
        if self.answers_tokens or self.head is None:
            return None
        return self.image.suffix if self.image is not None and self.head.reads is Reads.SUFFIX else 1

    @property
    def reads_first(self) -> bool:
        """Return whether the head reads the first token alone, so that the last layer computes no other."""
        return self.head is not None and self.head.reads is Reads.FIRST

    @property
    def readers(self) -> slice:
        """Return the tokens that the head reads, so that the last layer computes no others. Of those behind the patches
        it does where they read as if they stood anywhere: in a window, or turned, their places would count.
        """
        if self.reads_first:
            return FIRST_TOKEN
        if self.head is None or self.image is None or self.head.reads is not Reads.SUFFIX or not self.layers:
            return EVERY_TOKEN
        last = self.layers[-1]
        placed = last.window is not None or last.rotary is not None or self.relative is not None
        return EVERY_TOKEN if placed else slice(-self.image.suffix, None)

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
            layers, head, own = _layers(known.pop("layers")), known.pop("head"), known.pop("decoder", None)
            int8 = tuple((str(path), Int8Form(form)) for path, form in known.pop("int8"))
            relative = known.pop("relative", None)  # younger than the format, as is what follows without an index
            parts: dict[str, Any] = {
                "decoder": DecoderShape(**{**own, "layers": _layers(own["layers"])}) if own is not None else None,
                "output": OutputShape(**output) if (output := known.pop("output", None)) else None,
                "biases": Biases(known.pop("biases", Biases.ALL)),
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
        projected=bool(value.get("projected", False)),
        boxes=bool(value.get("boxes", False)),
    )


def _layers(values: list[dict[str, Any]]) -> tuple[LayerShape, ...]:
    return tuple(LayerShape(**value) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
