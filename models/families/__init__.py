"""The families that are read. A new one is a file here and a row in FAMILIES."""

from __future__ import annotations

from models.families.albert import ALBERT
from models.families.bert import BERT
from models.families.deit import DEIT
from models.families.distilbert import DISTILBERT
from models.families.electra import ELECTRA
from models.families.modernbert import MODERNBERT
from models.families.mpnet import MPNET
from models.families.roberta import ROBERTA
from models.families.vit import VIT
from models.families.yolos import YOLOS
from models.family import Family

FAMILIES: tuple[Family, ...] = (ALBERT, BERT, DEIT, DISTILBERT, ELECTRA, MODERNBERT, MPNET, ROBERTA, VIT, YOLOS)
