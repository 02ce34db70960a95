"""A byte-level BPE tokenizer, learnt from texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from models.errors import BadInput
from models.files import MAX_JSON_BYTES
from models.tokenizing import Tokenizing

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PADDING, END = SPECIAL_TOKENS[1], SPECIAL_TOKENS[2]


class Form(NamedTuple):
    """Which special tokens stand around a text, and around two."""

    single: str
    pair: str


ROBERTA = Form("<s> $A </s>", "<s> $A </s> </s>:0 $B:0 </s>:0")
ENDED = Form("$A </s>", "$A </s> $B:0 </s>:0")  # Marian's, of what is read and what is written
BARE = Form("$A", "$A $B:0")  # GPT-2's


def train_byte_level_bpe(texts: Iterable[str], *, vocab_size: int, max_length: int, form: Form = ROBERTA) -> Tokenizing:
    """Return a byte-level BPE tokenizer learnt from texts, with the special tokens of a `form`.

    Every text can be written in it: the 256 bytes are always in the vocabulary. The same texts give the same
    tokenizer. `max_length` is written down as the longest input of the model.

    Raises:
        BadInput: the vocabulary has no room for bytes and special tokens.

    Source: Radford et al. 2019 (byte-level BPE); Liu et al. 2019 (RoBERTa's special tokens).
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise BadInput(
            f"a vocabulary of {vocab_size} has no room for 256 bytes and {len(SPECIAL_TOKENS)} special tokens",
            fix=f"Give at least {smallest}.",
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.post_processor = TemplateProcessing(
        single=form.single,
        pair=form.pair,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
    }
    text = tokenizer.to_str()
    if len(text.encode()) > MAX_JSON_BYTES:
        raise BadInput(f"a vocabulary of {vocab_size} makes a file that could not be read back", fix="Ask for less.")
    return Tokenizing(text, config)
