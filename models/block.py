"""One layer of a Transformer, which reads or writes."""

from __future__ import annotations

from torch import Tensor, nn

from models.kinds import Biases
from models.layers.attention import Attention
from models.layers.cache import LayerCache, Reach
from models.layers.cross_attention import CrossAttention
from models.layers.dropout import Dropout
from models.layers.feedforward import FeedForward
from models.layers.norm import make_norm
from models.layers.patches import LearnedRows
from models.shape import EVERY_TOKEN, LayerShape, ModelShape


class Block(nn.Module):
    """Attention and feed-forward with residual sums, normalised after (BERT) or before (pre-norm) each; between them
    cross-attention where the layer reads an encoder's states.
    """

    def __init__(self, shape: ModelShape, layer: LayerShape) -> None:
        super().__init__()
        size, dropout, scale = shape.hidden_size, shape.attention_dropout, shape.attention_scale
        biases, eps = shape.biases, shape.norm_eps
        self.pre_norm = shape.pre_norm
        self.places = LearnedRows(shape.max_positions, size) if layer.places else None
        self.attention = Attention(size, layer, dropout=dropout, relative=shape.relative, biases=biases, scale=scale)
        self.attention_norm = make_norm(shape.norm, size, eps) if layer.normed else None
        crosses = layer.cross_heads is not None
        self.cross = CrossAttention(size, layer, dropout=dropout, biases=biases, scale=scale) if crosses else None
        self.cross_norm = make_norm(shape.norm, size, eps) if crosses else None
        self.ffn = FeedForward(size, layer.ffn, shape.activation, gated=shape.gated, bias=biases is Biases.ALL)
        self.ffn_norm = make_norm(shape.norm, size, eps)
        self.dropout = Dropout(shape.dropout)

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
        """Return the stream behind attention, for the sum that attention ends in."""
        if self.pre_norm:
            return summed
        assert self.attention_norm is not None  # only a pre-norm layer may be without it
        return self.attention_norm(summed)  # type: ignore[no-any-return]

    def ffn_sum(self, stream: Tensor) -> Tensor:
        """Return (batch, readers, hidden_size): the stream before the FFN and what the FFN adds to it."""
        return stream + self.dropout(self.ffn(self.ffn_norm(stream) if self.pre_norm else stream))  # type: ignore[no-any-return]

    def after_ffn(self, summed: Tensor) -> Tensor:
        """Return the block's output, for the sum that the FFN ends in."""
        return summed if self.pre_norm else self.ffn_norm(summed)

    def forward(self, hidden: Tensor, mask: Tensor | None, *, readers: slice = EVERY_TOKEN) -> Tensor:
        """Return (batch, readers, hidden_size): the tokens of `readers`, each of which attends to all, or in a causal
        layer to those before it and itself.

        `mask` as in Attention.forward.
        """
        stream = self.after_attention(self.attention_sum(hidden, mask, readers=readers))
        return self.after_ffn(self.ffn_sum(stream))

    def step(
        self, hidden: Tensor, reach: Reach, past: LayerCache | None, states: Tensor | None
    ) -> tuple[Tensor, LayerCache]:
        """Return (batch, new, hidden_size) of the new tokens of a causal layer, and what the next step needs.

        `past` is what the step before returned; at the beginning it is None, and `states` (batch, source, hidden_size)
        are an encoder's where the layer reads them.
        """
        attended, own = self.attention.step(self.attention_input(hidden), reach, None if past is None else past.own)
        stream = self.after_attention(hidden + self.dropout(attended))
        memory = None if past is None else past.cross
        if self.cross is not None and self.cross_norm is not None:
            if memory is None:
                assert states is not None
                memory = self.cross.remember(states)
            crossed = self.cross(self.cross_norm(stream) if self.pre_norm else stream, memory, reach.source)
            stream = stream + self.dropout(crossed)
            stream = stream if self.pre_norm else self.cross_norm(stream)
        return self.after_ffn(self.ffn_sum(stream)), LayerCache(own, memory)
