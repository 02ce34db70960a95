"""How each module becomes ONNX operators. LOWERINGS and GROUPS are the tables; a new layer is a row here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from export.emit import GroupLowering, Lowering
from export.lowering.activation import lower_gelu, lower_relu, lower_silu, lower_tanh
from export.lowering.attention import lower_attention, lower_distance_bias
from export.lowering.blocked import lower_blocked_embedding, lower_blocked_linears
from export.lowering.embeddings import lower_embedding, lower_embeddings, lower_word_output
from export.lowering.feedforward import lower_feed_forward
from export.lowering.heads import (
    lower_box_head,
    lower_classification_head,
    lower_embedding_head,
    lower_normed_head,
    lower_perceptron,
    lower_plain_head,
    lower_projection,
    lower_token_head,
)
from export.lowering.linear import lower_linears
from export.lowering.network import lower_block
from export.lowering.norm import lower_elementwise_norm, lower_layer_norm, lower_rms_norm
from export.lowering.patches import lower_patch_embeddings
from export.lowering.quantized import (
    lower_packed_embedding,
    lower_quantized_embedding,
    lower_quantized_linears,
    lower_two_bit_embedding,
)
from models.block import Block
from models.layers.attention import Attention, DistanceBias
from models.layers.blocked import BlockedEmbedding, BlockedLinear
from models.layers.embeddings import Embeddings, SinusoidalPositions, WordOutput
from models.layers.feedforward import FeedForward
from models.layers.heads import (
    BoxHead,
    ClassificationHead,
    EmbeddingHead,
    NormedHead,
    Perceptron,
    PlainHead,
    Projection,
    TokenHead,
)
from models.layers.norm import ElementwiseNorm
from models.layers.packed import PackedEmbedding, TwoBitEmbedding
from models.layers.patches import PatchEmbeddings
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear

LOWERINGS: Mapping[type[nn.Module], Lowering] = {
    Block: lower_block,
    Attention: lower_attention,
    DistanceBias: lower_distance_bias,
    FeedForward: lower_feed_forward,
    Embeddings: lower_embeddings,
    PatchEmbeddings: lower_patch_embeddings,
    WordOutput: lower_word_output,
    nn.Embedding: lower_embedding,
    SinusoidalPositions: lower_embedding,
    QuantizedEmbedding: lower_quantized_embedding,
    PackedEmbedding: lower_packed_embedding,
    TwoBitEmbedding: lower_two_bit_embedding,
    BlockedEmbedding: lower_blocked_embedding,
    nn.LayerNorm: lower_layer_norm,
    nn.RMSNorm: lower_rms_norm,
    ElementwiseNorm: lower_elementwise_norm,
    nn.GELU: lower_gelu,
    nn.ReLU: lower_relu,
    nn.SiLU: lower_silu,
    nn.Tanh: lower_tanh,
    ClassificationHead: lower_classification_head,
    NormedHead: lower_normed_head,
    TokenHead: lower_token_head,
    PlainHead: lower_plain_head,
    EmbeddingHead: lower_embedding_head,
    Projection: lower_projection,
    BoxHead: lower_box_head,
    Perceptron: lower_perceptron,
}

# Linear layers that read the same values become one computation where they can.
GROUPS: Mapping[type[nn.Module], GroupLowering] = {
    nn.Linear: lower_linears,
    QuantizedLinear: lower_quantized_linears,
    BlockedLinear: lower_blocked_linears,
}
