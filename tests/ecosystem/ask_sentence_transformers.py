"""Embeddings of sentence-transformers: a list of {"bundle", "task", "texts"} as JSON in, a list of vectors each out."""

from __future__ import annotations

import json
import sys

from sentence_transformers import SentenceTransformer

found = []
for asked in json.load(sys.stdin):
    model = SentenceTransformer(asked["bundle"], backend="onnx", local_files_only=True)
    found.append([model.encode([text])[0].tolist() for text in asked["texts"]])
json.dump(found, sys.stdout)
