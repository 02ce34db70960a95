"""What property tests draw: small sizes, named by what they are."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from models.kinds import Activation, Biases, Int8Form, Norm, Positions, Reads
from models.shape import DecoderShape, HeadShape, LayerShape, ModelShape, OutputShape, RelativeBias

FAMILIES = ("albert", "bert", "distilbert", "electra", "modernbert", "mpnet", "roberta")
heads = st.integers(0, 4)
head_sizes = st.integers(1, 8)
ffn_widths = st.integers(0, 8)
windows = st.none() | st.integers(0, 4)
layers = st.builds(LayerShape, heads=heads, head_size=head_sizes, ffn=ffn_widths, window=windows) | st.builds(
    LayerShape, heads=heads, head_size=head_sizes, ffn=ffn_widths, window=st.integers(0, 4), global_tokens=heads
)
linear_layers = st.builds(
    LayerShape,
    heads=heads,
    head_size=st.sampled_from((2, 4)),
    ffn=ffn_widths,
    rotary=st.none() | st.just(9.0),
    linear=st.just(True),
)
turned_layers = st.builds(
    LayerShape,
    heads=heads,
    head_size=st.sampled_from((2, 4, 8)),
    ffn=ffn_widths,
    window=windows,
    rotary=st.floats(1.0, 1e6),
    normed=st.booleans(),
)
rates = st.floats(0.0, 0.9, allow_nan=False)
labels = st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=4, unique=True).map(tuple)
head_shapes = st.builds(
    HeadShape,
    labels=labels,
    activation=st.sampled_from(Activation),
    dropout=rates,
    reads=st.sampled_from((Reads.FIRST, Reads.EACH)),
)


@st.composite
def model_shapes(draw: st.DrawFn) -> ModelShape:
    """Draw a network of any form, with some of its modules in int8."""
    pre_norm = draw(st.booleans())
    kinds = layers | linear_layers
    stack = tuple(draw(st.lists(kinds | turned_layers if pre_norm else kinds, max_size=3)))
    offset = draw(st.integers(0, 3))
    shape = ModelShape(
        family=draw(st.sampled_from(FAMILIES)),
        vocab_size=draw(st.integers(1, 30)),
        hidden_size=draw(st.integers(1, 8)),
        layers=stack,
        max_positions=draw(st.integers(8, 16)) + offset,
        position_offset=offset,
        positions=draw(st.sampled_from(Positions)),
        type_vocab_size=draw(st.integers(0, 2)),
        activation=draw(st.sampled_from(Activation)),
        norm=draw(st.sampled_from(Norm)),
        norm_eps=draw(st.floats(1e-12, 1e-3)),
        pre_norm=pre_norm,
        gated=draw(st.booleans()),
        dropout=draw(rates),
        attention_dropout=draw(rates),
        pad_token_id=draw(st.integers(0, 3)),
        head=draw(st.none() | head_shapes),
        embedding_size=draw(st.none() | st.integers(1, 8)),
        relative=draw(st.none() | st.builds(RelativeBias, buckets=st.integers(4, 9), max_distance=st.integers(3, 20))),
    )
    if shape.head is not None and draw(st.booleans()):
        reads = draw(st.sampled_from((Reads.FIRST, Reads.MEAN, Reads.EACH)))
        shape = replace(shape, head=replace(shape.head, reads=reads, normed=True))
    if draw(st.booleans()):
        head = HeadShape(
            (),
            reads=draw(st.sampled_from((Reads.FIRST, Reads.MEAN))),
            width=shape.hidden_size,
            normalized=draw(st.booleans()),
        )
        if draw(st.booleans()):
            head = replace(head, width=draw(st.integers(1, 9)), projected=True)
        shape = replace(shape, head=head)
    paths = {f"layers.{index}.attention.key" for index, layer in enumerate(stack) if layer.heads}
    paths |= {f"layers.{index}.ffn.up" for index, layer in enumerate(stack) if layer.ffn}
    forms = {path: draw(st.sampled_from((Int8Form.DYNAMIC, Int8Form.STATIC))) for path in draw(st.sets(_of(paths)))}
    if draw(st.booleans()):
        forms["embeddings.word"] = Int8Form.TABLE
    if shape.embedding_size is not None and draw(st.booleans()):
        forms["embeddings.projection"] = Int8Form.DYNAMIC
    return shape.with_int8(forms)


def _of(paths: set[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(sorted(paths)) if paths else st.nothing()


writing_layers = st.integers(0, 3).flatmap(
    lambda groups: st.builds(
        LayerShape,
        heads=st.integers(1, 2).map(lambda each: each * groups),
        head_size=st.sampled_from((2, 4)),
        ffn=ffn_widths,
        causal=st.just(True),
        kv_heads=st.just(groups),
        rotary=st.none() | st.just(9.0),
    )
)


@st.composite
def writing_shapes(draw: st.DrawFn) -> ModelShape:
    """Draw a network that writes, behind an encoder or by itself."""
    alone = draw(st.booleans())
    stack = draw(st.lists(writing_layers, min_size=1, max_size=3))
    crossing = tuple(replace(layer, cross_heads=draw(st.none() | st.integers(0, 3))) for layer in stack)
    own = draw(st.none() | st.integers(5, 12))
    return ModelShape(
        family=draw(st.sampled_from(("gpt2", "llama") if alone else ("t5", "bart"))),
        vocab_size=draw(st.integers(5, 12)),
        hidden_size=draw(st.integers(1, 8)),
        layers=tuple(stack) if alone else tuple(draw(st.lists(layers, max_size=2))),
        decoder=None if alone else DecoderShape(crossing, vocab_size=own),
        output=OutputShape(tied=draw(st.booleans()), scale=draw(st.sampled_from((1.0, 0.5))), bias=draw(st.booleans())),
        max_positions=draw(st.integers(10, 16)),
        position_offset=draw(st.integers(0, 2)),
        positions=draw(st.sampled_from(Positions)),
        norm=draw(st.sampled_from(Norm)),
        norm_eps=1e-5,
        pre_norm=draw(st.booleans()),
        gated=draw(st.booleans()),
        activation=draw(st.sampled_from(Activation)),
        relative=draw(st.none() | st.just(RelativeBias(buckets=6, max_distance=8))),
        biases=draw(st.sampled_from(Biases)),
        attention_scale=draw(st.none() | st.just(1.0)),
        embedding_scale=draw(st.sampled_from((1.0, 2.5))),
        embedding_norm=draw(st.booleans()),
    )
