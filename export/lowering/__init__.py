"""How each module becomes ONNX operators. LOWERINGS and GROUPS are the tables; a new layer is a row here."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from export.emit import GroupLowering, Lowering
from export.lowering.activation import gelu, relu, silu, tanh
from export.lowering.attention import attention
from export.lowering.embeddings import embedding, embeddings
from export.lowering.feedforward import feed_forward
from export.lowering.heads import classification_head
from export.lowering.linear import linears
from export.lowering.network import block, network
from export.lowering.norm import elementwise_norm, layer_norm, rms_norm
from export.lowering.quantized import quantized_embedding, quantized_linears
from models.layers.attention import Attention
from models.layers.embeddings import Embeddings, SinusoidalPositions
from models.layers.feedforward import FeedForward
from models.layers.heads import ClassificationHead
from models.layers.norm import ElementwiseNorm
from models.layers.quantized import QuantizedEmbedding, QuantizedLinear
from models.network import Block, Network

LOWERINGS: Mapping[type[nn.Module], Lowering] = {
    Network: network,
    Block: block,
    Attention: attention,
    FeedForward: feed_forward,
    Embeddings: embeddings,
    nn.Embedding: embedding,
    SinusoidalPositions: embedding,
    QuantizedEmbedding: quantized_embedding,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    ElementwiseNorm: elementwise_norm,
    nn.GELU: gelu,
    nn.ReLU: relu,
    nn.SiLU: silu,
    nn.Tanh: tanh,
    ClassificationHead: classification_head,
}

# Linear layers that read the same values become one computation where they can.
GROUPS: Mapping[type[nn.Module], GroupLowering] = {
    nn.Linear: linears,
    QuantizedLinear: quantized_linears,
}
