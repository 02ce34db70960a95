"""Answers of Optimum for bundles: a list of {"bundle", "task", "texts"} as JSON in, a list of answers each out."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from optimum import onnxruntime as ort
from transformers import AutoTokenizer, pipeline

CLASSES = {
    "text-classification": ort.ORTModelForSequenceClassification,
    "token-classification": ort.ORTModelForTokenClassification,
    "question-answering": ort.ORTModelForQuestionAnswering,
    "feature-extraction": ort.ORTModelForFeatureExtraction,
    "text2text-generation": ort.ORTModelForSeq2SeqLM,
    "text-generation": ort.ORTModelForCausalLM,
}


def answer(model: Any, tokenizer: Any, task: str, text: Any) -> Any:
    """Return the answer to a text, or to a question and its context."""
    if task == "text-classification":
        (found,) = pipeline(task, model=model, tokenizer=tokenizer, top_k=None)([text])
        return {one["label"]: one["score"] for one in found}
    read = tokenizer(*text, return_tensors="pt") if isinstance(text, list) else tokenizer(text, return_tensors="pt")
    if task in ("text2text-generation", "text-generation"):
        written = model.generate(**read, num_beams=1, do_sample=False)[0]
        if task == "text-generation":
            written = written[read["input_ids"].shape[1] :]
        return tokenizer.decode(written, skip_special_tokens=True)
    with torch.inference_mode():
        outputs = model(**read)
    if task == "question-answering":
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)[0].tolist()
    return (outputs.logits if task == "token-classification" else outputs.last_hidden_state)[0].tolist()


def answers(bundle: str, task: str, texts: list[Any]) -> list[Any]:
    """Return the answer to each text."""
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    model = CLASSES[task].from_pretrained(bundle, local_files_only=True)
    return [answer(model, tokenizer, task, text) for text in texts]


json.dump([answers(**asked) for asked in json.load(sys.stdin)], sys.stdout)
