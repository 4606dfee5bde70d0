"""Any text-classification model of Hugging Face's: Detoxify's, the sentiment classifier of LM-Steer, one of your own.

`prepare` fetches or copies the model once, as safetensors, and checks its labels; `Classifier` gives the probability of
one label, or of one less that of another.
"""

import inspect
import pickle
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from steerlab.data import hub
from steerlab.models import batches, load_tokenizer
from steerlab.scores import ScorerError, read_record, write_record
from steerlab.scores.classifier_files import OTHERS, PICKLED, WEIGHTS, files, name_and_version

TOKENS_A_BATCH = 4096  # pads included
TEXTS_A_SLICE = 128  # at least; a killed job loses at most these and a batch


class Classifier:
    """`score` gives P(label), in [0, 1], or P(label) - P(against), in [-1, 1]; a long text is cut at the model's limit.

    NaN for a text of no token at all. folder: written by `prepare`; device: a torch device. Computes in float32.
    """

    quantity: Literal["toxicity", "sentiment"]

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        record = read_record(folder)
        self.name, self.version, self.quantity = record["name"], record["version"], record["quantity"]
        self._activation, self._numbers = record["activation"], record["numbers"]
        self._tokenizer = load_tokenizer(folder)
        self._model = _opened(folder, self.name).to(device)
        self._limit = _longest(self._model, self._tokenizer)
        self._takes = inspect.signature(self._model.forward).parameters
        self._tokens = TOKENS_A_BATCH if record["together"] else 0

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64; texts of like length are read together, and NaN stands for one without a token."""
        scores = np.full(len(texts), np.nan)
        if not texts:
            return scores
        encoded = self._encoded(texts)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        columns = {key: rows for key, rows in encoded.items() if key in self._takes}
        for batch in batches(lengths, self._tokens):
            shares = self._shares({key: [rows[place] for place in batch] for key, rows in columns.items()})
            against = shares[:, self._numbers[1]] if len(self._numbers) > 1 else 0.0
            scores[batch] = (shares[:, self._numbers[0]] - against).cpu().numpy()
        return scores

    def slices(self, texts: Sequence[str]) -> list[list[int]]:
        """Places of the texts, as lists that may be scored each by itself to the bytes of all at once.

        A slice is some whole batches of `score`, which cuts it into the same ones again; texts of no token are in none.
        """
        lengths = [len(ids) for ids in self._encoded(texts)["input_ids"]] if texts else []
        slices: list[list[int]] = []
        for batch in batches(lengths, self._tokens):
            if not slices or len(slices[-1]) >= TEXTS_A_SLICE:
                slices.append([])
            slices[-1] += batch
        return slices

    def _encoded(self, texts: Sequence[str]) -> Any:
        return self._tokenizer(list(texts), truncation=self._limit is not None, max_length=self._limit)

    def _shares(self, rows: dict[str, list[list[int]]]) -> Tensor:
        """The probability of each label, (texts, labels) float64. rows: of unequal length, by the model's argument."""
        # Always on the right: positions count from the left, and tokenizers do not store their side.
        padded = self._tokenizer.pad(rows, padding_side="right", return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            logits = self._model(**padded).logits.double()
        return logits.sigmoid() if self._activation == "sigmoid" else logits.softmax(-1)


def prepare(source: Path | None, folder: Path, definition: Mapping[str, Any]) -> None:
    """Write config, tokenizer, weights and scorer.json.

    definition: of the configuration, {repo, revision} or {path}, quantity, label, perhaps against, activation. source:
    a mirror, for a repository, or None. scorer.json: name, version, quantity, labels of the model, activation, numbers
    (places of label and against among the labels), together (False: pads would move its scores, so texts are read one
    by one).
    Raises ScorerError, in one line, for a repository that the hub refuses, a folder without a classifier, weights that
    are no tensors alone, an unknown label, and outputs that are no probabilities.
    """
    if "path" in definition:
        _copy(Path(definition["path"]), folder)
    else:
        _fetch(definition, folder, source)
    name, version = name_and_version(definition)
    _to_safetensors(folder, name)
    if not (folder / "tokenizer.json").exists() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        raise ScorerError(f"{name} has its tokenizer as a SentencePiece file alone; install sentencepiece and protobuf")
    config = _opened(folder, name).config
    labels = [config.id2label[number] for number in range(config.num_labels)]
    wanted = [definition[key] for key in ("label", "against") if definition.get(key) is not None]
    facts = {
        "quantity": definition["quantity"],
        "labels": labels,
        "activation": _activation(config, definition.get("activation", "auto"), name),
        "numbers": [_number(label, labels, name) for label in wanted],
        "together": config.pad_token_id is not None,
    }
    write_record(folder, name=name, version=version, **facts)
    judge, texts = Classifier(folder), ["Hello", "Hello world, this is a longer text."]
    alone = np.concatenate([judge.score([text]) for text in texts])
    if not np.isfinite(alone).all():
        raise ScorerError(f"{name} gives scores that are not finite; its weights are damaged")
    if np.abs(judge.score(texts) - alone).max() > 1e-4:
        write_record(folder, name=name, version=version, **facts | {"together": False})


def _fetch(definition: Mapping[str, Any], folder: Path, mirror: Path | None) -> None:
    repo, revision = definition["repo"], definition["revision"]
    where = {"endpoint": definition.get("endpoint"), "mirror": mirror}
    try:
        hub.fetch(repo, revision, folder, who=f"scorer {repo}", files=(*WEIGHTS, *OTHERS), pickled=PICKLED, **where)
    except hub.HubError as error:
        raise ScorerError(str(error)) from error


def _copy(path: Path, folder: Path) -> None:
    if not path.is_dir():
        raise ScorerError(f"scorer: {path} is no folder; correct its path, as seen from where the run starts")
    for file in files(path):
        shutil.copyfile(file, folder / file.name)


def _to_safetensors(folder: Path, name: str) -> None:
    """Write pickled weights, if there are no others, as safetensors; only tensors are read, which runs no code."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = [file for pattern in PICKLED for file in sorted(folder.glob(pattern))]
    if not pickles:
        raise ScorerError(f"{name} has neither *.safetensors nor pytorch_model.bin; save the whole model there")
    tensors: dict[str, Tensor] = {}
    for file in pickles:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ScorerError(
                f"{name}: {file.name} is damaged or holds more than tensors, which would run code; "
                "save the model with safe serialisation"
            ) from error
        if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
            raise ScorerError(f"{name}: {file.name} is no table of tensors; save the model with safe serialisation")
        tensors |= {key: tensor.detach().clone().contiguous() for key, tensor in found.items()}
        file.unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _opened(folder: Path, name: str) -> Any:
    """The model, frozen, in eval mode and float32; raises ScorerError where the folder has no whole classifier."""
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ScorerError(f"{name} is no text classifier that transformers opens ({reason}); name another") from error
    if found["missing_keys"]:  # they would be drawn at random
        lacking = ", ".join(sorted(found["missing_keys"])[:3])
        raise ScorerError(f"{name} has no weights for {lacking}; give a model that was trained to classify")
    return model.eval().requires_grad_(False)


def _activation(config: Any, wanted: str, name: str) -> Literal["sigmoid", "softmax"]:
    """What makes probabilities of the logits; `auto` is the rule of transformers' text-classification pipeline."""
    if wanted == "auto" and config.problem_type == "regression":
        raise ScorerError(f"{name} is a regression, whose outputs are no probabilities; set activation to sigmoid")
    if wanted == "auto":
        many = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if many else "softmax"
    if wanted == "softmax" and config.num_labels == 1:
        raise ScorerError(f"{name} has a single label, whose softmax is always 1; set activation to sigmoid")
    return "sigmoid" if wanted == "sigmoid" else "softmax"


def _number(label: str, labels: Sequence[str], name: str) -> int:
    """The place of a label, written in whatever case."""
    for exact in (str, str.lower):
        if exact(label) in (known := [exact(one) for one in labels]):
            return known.index(exact(label))
    raise ScorerError(f"{name} has no label {label!r}; name one of {', '.join(labels)}")


def _longest(model: Any, tokenizer: Any) -> int | None:
    """Tokens of a text that can be read: the smaller limit of tokenizer and model, None where neither has one."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 1e9 else []  # 1e30 stands for none
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    if positions > 0:
        limits.append(positions - _unused_positions(model))
    return min(limits, default=None)


def _unused_positions(model: nn.Module) -> int:
    """RoBERTa counts its positions from behind the pad's."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.padding_idx + 1
    return 0
