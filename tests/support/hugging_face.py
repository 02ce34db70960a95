"""Tiny random models of `transformers`, the oracle, saved as its users save them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.examples import WORDS, tiny_tokenizing
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

BERT_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 30,
}
SIZES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "bert": (BertConfig, {**BERT_SIZES, "pad_token_id": 0}),
    "roberta": (RobertaConfig, {**BERT_SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": (
        DistilBertConfig,
        {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 30},
    ),
    "electra": (ElectraConfig, {**BERT_SIZES, "embedding_size": 16, "pad_token_id": 0}),
    "albert": (AlbertConfig, {**BERT_SIZES, "embedding_size": 16, "pad_token_id": 0}),
    "mpnet": (MPNetConfig, BERT_SIZES),
    "modernbert": (
        ModernBertConfig,
        {
            **BERT_SIZES,
            "num_hidden_layers": 3,
            "local_attention": 8,
            "global_attn_every_n_layers": 2,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
        },
    ),
}
WITHOUT_TYPES = ("distilbert", "modernbert", "mpnet")
ROPES = {
    kind: {"rope_type": "default", "rope_theta": theta}
    for kind, theta in (("full_attention", 500.0), ("sliding_attention", 20.0))
}
# The cases that each family must read; the network has all of these settings.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert gelu_new": ("bert", {"hidden_act": "gelu_new"}),
    "bert gelu_pytorch_tanh": ("bert", {"hidden_act": "gelu_pytorch_tanh"}),
    "bert relu": ("bert", {"hidden_act": "relu"}),
    "bert silu": ("bert", {"hidden_act": "silu"}),
    "bert one token type": ("bert", {"type_vocab_size": 1}),
    "bert five labels": ("bert", {"num_labels": 5}),
    "bert large eps": ("bert", {"layer_norm_eps": 1e-3}),
    "bert one head, four layers": ("bert", {"num_attention_heads": 1, "num_hidden_layers": 4}),
    "bert regression": ("bert", {"num_labels": 1, "problem_type": "regression"}),
    "bert several labels": ("bert", {"num_labels": 4, "problem_type": "multi_label_classification"}),
    "roberta": ("roberta", {}),
    "roberta relu": ("roberta", {"hidden_act": "relu", "num_labels": 3}),
    "roberta two token types": ("roberta", {"type_vocab_size": 2}),
    "roberta pad 0": ("roberta", {"pad_token_id": 0}),
    "distilbert": ("distilbert", {}),
    "distilbert relu": ("distilbert", {"activation": "relu", "num_labels": 4}),
    "distilbert sinusoidal": ("distilbert", {"sinusoidal_pos_embds": True}),
    "electra": ("electra", {}),
    "electra tables of the hidden size": ("electra", {"embedding_size": 24, "num_labels": 3}),
    "electra wider tables": ("electra", {"embedding_size": 32, "type_vocab_size": 1, "hidden_act": "relu"}),
    "albert": ("albert", {}),
    "albert gelu, five layers in two groups": (
        "albert",
        {"hidden_act": "gelu", "num_hidden_layers": 5, "num_hidden_groups": 2},
    ),
    "albert a group for each layer": ("albert", {"num_hidden_groups": 2, "num_labels": 3}),
    "albert tables of the hidden size": ("albert", {"embedding_size": 24, "hidden_dropout_prob": 0.2}),
    "mpnet": ("mpnet", {}),
    "mpnet relu": ("mpnet", {"hidden_act": "relu", "num_labels": 3, "num_attention_heads": 1}),
    "modernbert": ("modernbert", {}),
    "modernbert mean of tokens, relu": ("modernbert", {"classifier_pooling": "mean", "hidden_activation": "relu"}),
    "modernbert with biases": (
        "modernbert",
        {**dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True), "num_labels": 3},
    ),
    "modernbert local layers alone": ("modernbert", {"layer_types": ["sliding_attention"] * 3, "local_attention": 2}),
    "modernbert another base": ("modernbert", {"rope_parameters": ROPES, "norm_eps": 1e-3, "num_attention_heads": 1}),
    "mpnet beyond the farthest bucket": ("mpnet", {"max_position_embeddings": 330}),
}


def oracle(family: str, *, kind: Any = AutoModelForSequenceClassification, seed: int = 0, **changes: Any) -> Any:
    """Return a `transformers` model whose every weight is drawn, norms and biases too."""
    config, sizes = SIZES[family]
    torch.manual_seed(seed)
    model = kind.from_config(config(**{"vocab_size": WORDS, **sizes, **changes}), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape) * 0.2
            weight.copy_(drawn + 1 if "norm" in name.lower() and name.endswith("weight") else drawn)
    return model


def saved(model: PreTrainedModel, directory: Path, **options: Any) -> Path:
    """Return `directory` after `transformers` saved the model there, with a tokenizer of its vocabulary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory, **options)
    tiny_tokenizing().save(directory)
    return directory


def copied(model: PreTrainedModel) -> int:
    """Return how many weights are read a second time or more, because layers share them."""
    times, shared = 0, torch.nn.Module()
    if model.config.model_type == "albert":
        groups = model.albert.encoder.albert_layer_groups
        times, shared = model.config.num_hidden_layers - len(groups), groups[0]
    if model.config.model_type == "mpnet":
        times, shared = model.config.num_hidden_layers - 1, model.mpnet.encoder.relative_attention_bias
    return times * sum(weight.numel() for weight in shared.parameters())


def edit_config(directory: Path, **changes: Any) -> None:
    """Set keys of a checkpoint's config.json; None takes a key out."""
    path = directory / "config.json"
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def tokens(*, rows: int = 4, time: int = 11, pad: int = 0, types: int = 1, padded: bool = False) -> dict[str, Tensor]:
    """Return a batch as a network takes it; padded rows end at different lengths."""
    random = np.random.default_rng(time)
    ids = torch.from_numpy(random.integers(2, WORDS, (rows, time)))
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, max(1, time - 2 * row - 1) :] = 0
    kinds = torch.from_numpy(random.integers(0, types, (rows, time))) * mask if types else torch.zeros_like(ids)
    return {
        "input_ids": torch.where(mask.bool(), ids, torch.full_like(ids, pad)),
        "attention_mask": mask,
        "token_type_ids": kinds,
    }


def answer(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the logits of a `transformers` model, starts and ends as two of each token; token types are given only to
    a family that has them.
    """
    known = dict(batch)
    if model.config.model_type in WITHOUT_TYPES:
        del known["token_type_ids"]
    with torch.no_grad():
        output = model(**known)
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    logits: Tensor = output.logits
    return logits
