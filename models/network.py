"""The one network: a Transformer encoder in which every layer states its own shape."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from models.errors import BadInput
from models.layers.attention import Attention, DistanceBias, padding_mask
from models.layers.embeddings import Embeddings
from models.layers.feedforward import FeedForward
from models.layers.heads import make_head
from models.layers.norm import make_norm
from models.layers.packed import PackedEmbedding, TwoBitEmbedding
from models.layers.patches import LearnedRows, PatchEmbeddings
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear
from models.shape import EVERY_TOKEN, TABLES, Int8Form, ModelShape


class Features(NamedTuple):
    """What a forward pass saw: logits as `Network.forward` returns them, and hidden states (batch, time, hidden) after
    the embeddings and after every layer.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]


class Block(nn.Module):
    """Attention and feed-forward with residual sums, normalised after (BERT) or before (pre-norm) each."""

    def __init__(self, shape: ModelShape, index: int) -> None:
        super().__init__()
        layer = shape.layers[index]
        self.pre_norm = shape.pre_norm
        self.places = LearnedRows(shape.max_positions, shape.hidden_size) if layer.places else None
        self.attention = Attention(shape.hidden_size, layer, dropout=shape.attention_dropout, relative=shape.relative)
        self.attention_norm = make_norm(shape.norm, shape.hidden_size, shape.norm_eps) if layer.normed else None
        self.ffn = FeedForward(shape.hidden_size, layer.ffn, shape.activation, gated=shape.gated)
        self.ffn_norm = make_norm(shape.norm, shape.hidden_size, shape.norm_eps)
        self.dropout = nn.Dropout(shape.dropout)

    def attention_input(self, hidden: Tensor) -> Tensor:
        """Return what the query, key and value projections read, for the block's input `hidden`."""
        return self._normed(self._placed(hidden))

    def _placed(self, hidden: Tensor) -> Tensor:
        return hidden if self.places is None else hidden + self.places()

    def _normed(self, hidden: Tensor) -> Tensor:
        return self.attention_norm(hidden) if self.pre_norm and self.attention_norm is not None else hidden

    def attention_sum(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): the block's input and what attention adds to it; as in `forward`."""
        hidden = self._placed(hidden)
        inner = self._normed(hidden)
        return hidden[:, readers] + self.dropout(self.attention(inner, mask, readers=readers))  # type: ignore[no-any-return]

    def after_attention(self, summed: Tensor) -> Tensor:
        """Return the stream between the sublayers, for the sum that attention ends in."""
        if self.pre_norm:
            return summed
        assert self.attention_norm is not None  # only a pre-norm layer may be without it
        return self.attention_norm(summed)  # type: ignore[no-any-return]

    def ffn_sum(self, stream: Tensor) -> Tensor:
        """Return (batch, readers, hidden_size): the stream between the sublayers and what the FFN adds to it."""
        return stream + self.dropout(self.ffn(self.ffn_norm(stream) if self.pre_norm else stream))  # type: ignore[no-any-return]

    def after_ffn(self, summed: Tensor) -> Tensor:
        """Return the block's output, for the sum that the FFN ends in."""
        return summed if self.pre_norm else self.ffn_norm(summed)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): the tokens of `readers`, each of which attends to all.

        `mask` as in Attention.forward.
        """
        stream = self.after_attention(self.attention_sum(hidden, mask, readers=readers))
        return self.after_ffn(self.ffn_sum(stream))


class Network(nn.Module):
    """A Transformer encoder with an optional head, built from a ModelShape and nothing else."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        image = shape.image
        self.embeddings = (
            Embeddings(shape) if image is None else PatchEmbeddings(shape.hidden_size, image, dropout=shape.dropout)
        )
        self.layers = nn.ModuleList(Block(shape, index) for index in range(len(shape.layers)))
        self.final_norm = make_norm(shape.norm, shape.hidden_size, shape.norm_eps) if shape.pre_norm else None
        self.head = (
            None
            if shape.head is None
            else make_head(
                shape.hidden_size,
                shape.head,
                norm=shape.norm,
                eps=shape.norm_eps,
                image=image,
            )
        )
        if not next(self.parameters()).is_meta:  # else the weights are about to be read
            initialize(self, shape.initializer_range)
        for path, form in shape.int8:
            self.set_submodule(path, _int8(self._part(path), form, path), strict=True)

    def _part(self, path: str) -> nn.Module:
        try:
            return self.get_submodule(path)
        except AttributeError:
            raise BadInput("there is no such module to put into int8", where=path) from None

    def sample(self, tokens: int) -> dict[str, Tensor]:
        """Return what `forward` can be called with, by name: one row of so many tokens where their number is free."""
        return self.embeddings.sample(tokens)

    def embed(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Return (batch, time, hidden), what the first layer reads; arguments as in `forward`."""
        return self.embeddings(input_ids if pixel_values is None else pixel_values, token_type_ids)  # type: ignore[no-any-return]

    def _encode(self, embedded: Tensor, attention_mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> list[Tensor]:
        """Return the states after the embeddings and every layer; the last layer computes only the `readers`."""
        mask = padding_mask(attention_mask)
        states = [embedded]
        for layer in self.layers:
            last = len(states) == len(self.layers)
            states.append(layer(states[-1], mask, readers=readers if last else EVERY_TOKEN))
        if self.final_norm is not None:
            states[-1] = self.final_norm(states[-1])
        return states

    def features(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Features:
        """Return logits and all hidden states; arguments as in `forward`."""
        states = self._encode(self.embed(input_ids, attention_mask, token_type_ids, pixel_values), attention_mask)
        logits = states[-1] if self.head is None else self.head(states[-1], attention_mask)
        return Features(logits, tuple(states))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Return logits (batch, labels), of a head that answers tokens (batch, time, labels), of one with boxes
        (batch, tokens behind the patches, labels + 1 + 4), embeddings (batch, width) of a head without labels, or
        hidden states (batch, time, hidden) where there is no head.

        `input_ids` and `token_type_ids` are whole numbers (batch, time); `attention_mask` holds 1 for tokens and 0 for
        padding on the right. A network of images is given `pixel_values` alone, normalised (batch, channels, height,
        width).

        Where the head reads the first token alone, or those behind the patches, the last layer computes no others:
        exact in float. In dynamic int8 the activation scales of that layer's query, output and FFN then come from these
        tokens alone, as in the exported graph; `features` takes them over all tokens.
        """
        embedded = self.embed(input_ids, attention_mask, token_type_ids, pixel_values)
        hidden = self._encode(embedded, attention_mask, readers=self.shape.readers)[-1]
        return hidden if self.head is None else self.head(hidden, attention_mask)


def initialize(module: nn.Module, deviation: float) -> None:
    """Draw the weights of linear layers and tables from N(0, deviation^2) and clear the biases (Devlin et al. 2019)."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding, DistanceBias, LearnedRows)) and part.weight.numel():
            nn.init.normal_(part.weight, std=deviation)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


def _int8(module: nn.Module, form: Int8Form, path: str) -> nn.Module:
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE:
        return QuantizedEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE4:
        return PackedEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE2:
        return TwoBitEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Linear) and form not in TABLES:
        return QuantizedLinear(module.in_features, module.out_features, form=form)
    raise BadInput(f"a {type(module).__name__} has no int8 form {form.value!r}", where=path)
