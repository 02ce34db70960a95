"""The families that are read. A new one is a file here and a row in FAMILIES."""

from __future__ import annotations

from models.families.bert import BERT
from models.families.distilbert import DISTILBERT
from models.families.roberta import ROBERTA
from models.family import Family

FAMILIES: tuple[Family, ...] = (BERT, DISTILBERT, ROBERTA)
