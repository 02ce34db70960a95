"""The families that are read. A new one is a file here and a row in FAMILIES."""

from __future__ import annotations

from models.families.albert import ALBERT
from models.families.bart import BART
from models.families.bert import BERT
from models.families.deit import DEIT
from models.families.distilbert import DISTILBERT
from models.families.electra import ELECTRA
from models.families.gpt2 import GPT2
from models.families.llama import LLAMA
from models.families.marian import MARIAN
from models.families.mbart import MBART
from models.families.mistral import MISTRAL
from models.families.modernbert import MODERNBERT
from models.families.mpnet import MPNET
from models.families.pegasus import PEGASUS
from models.families.qwen2 import QWEN2
from models.families.roberta import ROBERTA
from models.families.t5 import T5
from models.families.vit import VIT
from models.families.yolos import YOLOS
from models.family import Family

FAMILIES: tuple[Family, ...] = (
    ALBERT,
    BART,
    BERT,
    DEIT,
    DISTILBERT,
    ELECTRA,
    GPT2,
    LLAMA,
    MARIAN,
    MBART,
    MISTRAL,
    MODERNBERT,
    MPNET,
    PEGASUS,
    QWEN2,
    ROBERTA,
    T5,
    VIT,
    YOLOS,
)
