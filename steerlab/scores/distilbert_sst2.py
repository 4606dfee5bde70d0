"""Sentiment by DistilBERT fine-tuned on SST-2: the model that transformers' sentiment pipeline takes by default.

The classifier of LM-Steer's sentiment experiments. It reads prompt and continuation together and knows only positive
and negative: a neutral text falls on one side, often far out.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from steerlab.models import load_tokenizer, pad
from steerlab.scores import ScorerError, read_record, write_record

NAME = "distilbert-base-uncased-finetuned-sst-2-english"
VERSION = "714eb0fa89d2"  # of its commit on the hub, which the sources table pins
TOKENS_A_BATCH = 4096  # pads included
LABELS = ("NEGATIVE", "POSITIVE")


class DistilbertSst2:
    """`score` gives P(POSITIVE) - P(NEGATIVE), in [-1, 1]; of a longer text the first 512 tokens are read.

    folder: written by `prepare`; device: a torch device.
    """

    quantity: Literal["sentiment"] = "sentiment"

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        record = read_record(folder)
        self.name, self.version = record["name"], record["version"]
        self._tokenizer = load_tokenizer(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self._model = model.to(device).eval().requires_grad_(False)
        self._negative, self._positive = (_labels(model.config)[label] for label in LABELS)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        scores = np.empty(len(texts))
        if not texts:
            return scores
        limit = self._model.config.max_position_embeddings
        ids = self._tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        for batch in _batches([len(row) for row in ids]):
            padded, mask = pad(
                [ids[row] for row in batch],
                side="right",
                pad_id=self._tokenizer.pad_token_id,
                device=self._model.device,
            )
            with torch.inference_mode():
                shares = self._model(input_ids=padded, attention_mask=mask).logits.double().softmax(-1)
            scores[batch] = (shares[:, self._positive] - shares[:, self._negative]).cpu().numpy()
        return scores


def prepare(source: Path | None, folder: Path) -> None:
    """Copy config, tokenizer and safetensors weights from the raw folder.

    Raises ScorerError where there are no safetensors weights or the labels are not NEGATIVE and POSITIVE.
    """
    if source is None:
        raise ScorerError(f"{NAME} is given no raw folder; fetch the source distilbert_sst2 and pass it")
    if not (source / "model.safetensors").is_file():
        raise ScorerError(f"{source} has no model.safetensors, and pickles run code; save it with safe serialisation")
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    missing = set(LABELS) - set(_labels(AutoConfig.from_pretrained(folder, local_files_only=True)))
    if missing:
        raise ScorerError(f"{source} has no label {' and no '.join(sorted(missing))}; give a sentiment classifier")
    write_record(folder, name=NAME, version=VERSION)


_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def _labels(config: Any) -> dict[str, int]:
    return {label.upper(): number for number, label in config.id2label.items()}


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts of like length, at most TOKENS_A_BATCH tokens with the pads, or one text, at a time."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > TOKENS_A_BATCH:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
