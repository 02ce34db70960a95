"""The one network: a Transformer that reads, writes or both, in which every layer states its own shape."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from models.block import Block
from models.decoder import Decoder, Written, walk
from models.errors import BadInput
from models.kinds import BLOCKS, TABLES, Int8Form
from models.layers.attention import DistanceBias, padding_mask
from models.layers.blocked import BlockedEmbedding, BlockedLinear
from models.layers.cache import Cache, reach_of, written
from models.layers.embeddings import Embeddings, WordOutput
from models.layers.heads import make_head
from models.layers.norm import make_norm
from models.layers.packed import PackedEmbedding, TwoBitEmbedding
from models.layers.patches import LearnedRows, PatchEmbeddings
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear
from models.shape import EVERY_TOKEN, ModelShape


class Features(NamedTuple):
    """What a forward pass saw: logits as `Network.forward` returns them, and hidden states (batch, time, hidden) after
    the embeddings and after every layer; `written` are those of a decoder.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    written: tuple[Tensor, ...] = ()


class Network(nn.Module):
    """A Transformer built from a ModelShape and nothing else: an encoder with an optional head, an encoder with a
    decoder that writes, or causal layers that write themselves.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        image = shape.image
        self.embeddings = (
            Embeddings(shape) if image is None else PatchEmbeddings(shape.hidden_size, image, dropout=shape.dropout)
        )
        self.layers = nn.ModuleList(Block(shape, layer) for layer in shape.layers)
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
        self.decoder = None if shape.decoder is None else Decoder(shape)
        words = None if shape.output is None else WordOutput(shape.hidden_size, shape.written_words, shape.output)
        self.output = words
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
        read = self.embeddings.sample(tokens)
        return (
            read
            if self.decoder is None
            else {**read, "decoder_input_ids": self.decoder.embeddings.sample(tokens)["input_ids"]}
        )

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
        decoder_input_ids: Tensor | None = None,
    ) -> Features:
        """Return logits and all hidden states; arguments as in `forward`."""
        states = self._encode(self.embed(input_ids, attention_mask, token_type_ids, pixel_values), attention_mask)
        if self.decoder is not None:
            ids = _needed(decoder_input_ids)
            said = self.write(ids, states[-1], attention_mask)
            return Features(self.words(said.states[-1]), tuple(states), said.states)
        if self.output is not None:
            return Features(self.words(states[-1]), tuple(states))
        logits = states[-1] if self.head is None else self.head(states[-1], attention_mask)
        return Features(logits, tuple(states))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Tensor:
        """Return logits (batch, labels), of a head that answers tokens (batch, time, labels), of one with boxes
        (batch, tokens behind the patches, labels + 1 + 4), embeddings (batch, width) of a head without labels, or
        hidden states (batch, time, hidden) where there is no head; of a network that writes logits (batch, time, words)
        of the word behind each token that was written.

        `input_ids` and `token_type_ids` are whole numbers (batch, time); `attention_mask` holds 1 for tokens and 0 for
        padding on the right. A network of images is given `pixel_values` alone, normalised (batch, channels, height,
        width). `decoder_input_ids` (batch, written) are what a decoder wrote; their padding, on the right, is read by
        no token before it.

        Where the head reads the first token alone, or those behind the patches, the last layer computes no others:
        exact in float. In dynamic int8 the activation scales of that layer's query, output and FFN then come from these
        tokens alone, as in the exported graph; `features` takes them over all tokens.
        """
        embedded = self.embed(input_ids, attention_mask, token_type_ids, pixel_values)
        hidden = self._encode(embedded, attention_mask, readers=self.shape.readers)[-1]
        if self.decoder is not None:
            hidden = self.write(_needed(decoder_input_ids), hidden, attention_mask).states[-1]
        if self.output is not None:
            return self.words(hidden)
        return hidden if self.head is None else self.head(hidden, attention_mask)

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Return the states (batch, time, hidden) that a decoder reads; arguments as in `forward`."""
        return self._encode(self.embed(input_ids, attention_mask, token_type_ids, pixel_values), attention_mask)[-1]

    def decode(
        self, ids: Tensor, states: Tensor | None = None, mask: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """Return logits (batch, new, words) of the word behind each of the new tokens `ids` (batch, new), and what the
        next step is given as `cache`.

        Behind an encoder, `states` (batch, source, hidden) are what `encode` returned, needed at the first step alone,
        and `mask` (batch, source) is that of the source, needed at every step where there is padding. Without an
        encoder, `mask` (batch, all tokens so far) holds 1 for tokens and 0 for padding, on either side of a prompt;
        places count tokens alone.
        """
        said = self.write(ids, states, mask, cache)
        return self.words(said.states[-1]), said.cache

    def write(
        self, ids: Tensor, states: Tensor | None = None, mask: Tensor | None = None, cache: Cache | None = None
    ) -> Written:
        """Return the states of new tokens and the cache; arguments as in `decode`."""
        past = written(cache)
        if self.decoder is None:
            reach = reach_of(ids, past=past, mask=mask, source=None)
            embedded = self.embeddings(ids, places=reach.places)
            return walk(self.layers, self.final_norm, embedded, reach, cache=cache, source=None)
        reach = reach_of(ids, past=past, mask=None, source=padding_mask(mask))
        embedded = self.decoder.embeddings(ids, places=reach.places, table=self.word_table)
        return walk(self.decoder.layers, self.decoder.final_norm, embedded, reach, cache=cache, source=states)

    @property
    def word_table(self) -> nn.Module:
        """Return the table that what writes looks its own words up in."""
        own = None if self.decoder is None else self.decoder.embeddings.word
        return self.embeddings.get_submodule("word") if own is None else own

    def words(self, hidden: Tensor) -> Tensor:
        """Return logits (..., words) for the last states (..., hidden) of what writes.

        Raises:
            BadInput: the network writes nothing.
        """
        if self.output is None:
            raise BadInput("the model writes nothing", where=f"a {self.shape.family} model")
        return self.output(hidden, self.word_table)  # type: ignore[no-any-return]


def _needed(decoder_input_ids: Tensor | None) -> Tensor:
    if decoder_input_ids is None:
        raise BadInput("a model with a decoder needs the tokens that it wrote so far", where="decoder_input_ids")
    return decoder_input_ids


def initialize(module: nn.Module, deviation: float) -> None:
    """Draw the weights of linear layers and tables from N(0, deviation^2) and clear the biases (Devlin et al. 2019)."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding, DistanceBias, LearnedRows)) and part.weight.numel():
            nn.init.normal_(part.weight, std=deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _int8(module: nn.Module, form: Int8Form, path: str) -> nn.Module:
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE:
        return QuantizedEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE4:
        return PackedEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Embedding) and form is Int8Form.TABLE2:
        return TwoBitEmbedding(module.num_embeddings, module.embedding_dim)
    if isinstance(module, nn.Embedding) and form in BLOCKS:
        return BlockedEmbedding(module.num_embeddings, module.embedding_dim, blocks=BLOCKS[form])
    if isinstance(module, nn.Linear) and form in BLOCKS:
        return BlockedLinear(module.in_features, module.out_features, blocks=BLOCKS[form])
    if isinstance(module, nn.Linear) and form not in TABLES:
        return QuantizedLinear(module.in_features, module.out_features, form=form)
    raise BadInput(f"a {type(module).__name__} has no int8 form {form.value!r}", where=path)
