"""Toxicity by toxic-comment-classifier: a small bidirectional LSTM on words, trained on Jigsaw's comments.

The published package needs TensorFlow and opens a pickle. Here its files are converted once (`prepare`) and the network
runs in torch: the same scores to 2e-7, measured on 204 texts against keras 3.15.1. It ranks much as Perspective does
(AUC 0.974 on 1,996 Wikipedia comments; 93.9 % agree at the cut of 0.5), by another road than the linear scorer: an
independent check of a result's sign. Its numbers are never to be printed as Perspective's.
"""

import collections
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from steerlab.scores import ScorerError, read_record, write_record
from steerlab.store import write_json

NAME, VERSION = "toxic-comment-classifier", "0.3.0"
WEIGHTS, TOKENIZER = "model.weights.h5", "tokenizer.pickle"  # in the raw folder of the source toxic_comment_classifier
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
LENGTH = 100  # words the network reads: the last ones of a longer text
BATCH = 256


class ToxicCommentClassifier:
    """`score` gives the probability that a text is `toxic`, in [0, 1]; words the network does not know are skipped.

    folder: written by `prepare`.
    """

    quantity: Literal["toxicity"] = "toxicity"

    def __init__(self, folder: Path) -> None:
        record = read_record(folder)
        self.name, self.version, settings = record["name"], record["version"], record["settings"]
        words = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self._index = {word: number for number, word in enumerate(words, start=1)}
        self._length = settings["length"]
        self._blank = str.maketrans(dict.fromkeys(settings["filters"], " "))
        self._network = _load_network(folder / "model.safetensors")

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, in [0, 1]; BATCH texts at a time."""
        ids = torch.zeros(len(texts), self._length, dtype=torch.int64)
        for row, text in enumerate(texts):
            if known := self._known(text):
                ids[row, -len(known) :] = torch.tensor(known)
        with torch.inference_mode():
            found = [self._network(batch)[:, LABELS.index("toxic")] for batch in ids.split(BATCH) if len(batch)]
        return torch.cat([torch.empty(0), *found]).double().numpy()

    def _known(self, text: str) -> list[int]:
        """Numbers of the last known words of the text, as keras' Tokenizer gives them: lower case, cut at blanks."""
        words = text.lower().translate(self._blank).split(" ")
        return [number for word in words if (number := self._index.get(word))][-self._length :]


def prepare(source: Path | None, folder: Path) -> None:
    """Convert the published files once: vocabulary.json, model.safetensors and scorer.json.

    source: the raw folder with the weights (h5) and the tokenizer (a pickle, of which nothing is run).
    Raises ScorerError for files that hold anything else than expected.
    """
    if source is None:
        raise ScorerError(f"{NAME} is given no raw folder; fetch the source toxic_comment_classifier and pass it")
    tokenizer = _read_tokenizer(source / TOKENIZER)
    weights = _read_weights(source / WEIGHTS)
    write_json(folder / "vocabulary.json", _vocabulary(tokenizer, len(weights["embedding.weight"])))
    save_file(weights, folder / "model.safetensors")
    write_record(
        folder,
        name=NAME,
        version=VERSION,
        settings={"length": LENGTH, "filters": tokenizer["filters"], "labels": LABELS},
    )


# ---- the network ----


class Network(nn.Module):
    """Word numbers (batch, length), 0 for a pad in front, to probabilities (batch, labels).

    Pads are words like any other, as in training: the LSTMs read them and the maximum is taken over them too.
    """

    def __init__(self, words: int, width: int, states: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, states, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * states, hidden)
        self.output = nn.Linear(hidden, labels)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (texts, words) int64. Returns (texts, labels), each label's probability."""
        states, _ = self.lstm(self.embedding(ids))
        return self.output(self.hidden(states.amax(1)).relu()).sigmoid()


def _load_network(path: Path) -> Network:
    weights = load_file(path)
    (words, width), states = weights["embedding.weight"].shape, weights["lstm.weight_hh_l0"].shape[1]
    (hidden, _), (labels, _) = weights["hidden.weight"].shape, weights["output.weight"].shape
    network = Network(words, width, states, hidden, labels)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


# ---- the conversion ----


def _read_weights(path: Path) -> dict[str, Tensor]:
    """State dict of `Network` from keras' h5 file.

    Both order an LSTM's gates input, forget, cell, output; keras multiplies from the right, so matrices are transposed,
    and has one bias where torch has two.
    """
    import h5py

    with h5py.File(path) as file:

        def array(name: str) -> Tensor:
            return torch.from_numpy(np.asarray(file[f"layers/{name}"], dtype=np.float32))

        weights = {"embedding.weight": array("embedding/vars/0")}
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            cell = f"bidirectional/{direction}_layer/cell/vars"
            bias = array(f"{cell}/2")
            weights[f"lstm.weight_ih_l0{suffix}"] = array(f"{cell}/0").T.contiguous()
            weights[f"lstm.weight_hh_l0{suffix}"] = array(f"{cell}/1").T.contiguous()
            weights[f"lstm.bias_ih_l0{suffix}"] = bias
            weights[f"lstm.bias_hh_l0{suffix}"] = torch.zeros_like(bias)
        for ours, theirs in (("hidden", "dense"), ("output", "dense_1")):
            weights[f"{ours}.weight"] = array(f"{theirs}/vars/0").T.contiguous()
            weights[f"{ours}.bias"] = array(f"{theirs}/vars/1")
    return weights


def _read_tokenizer(path: Path) -> dict[str, Any]:
    """Attributes of the pickled keras Tokenizer; raises ScorerError for any other pickle, before a line of it runs."""
    with path.open("rb") as file:
        try:
            tokenizer = _Unpickler(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise ScorerError(f"{path} is not the tokenizer of {NAME}: {error}; fetch it again") from error
    if not isinstance(tokenizer, _KerasTokenizer):
        raise ScorerError(f"{path} holds a {type(tokenizer).__name__}, no keras Tokenizer; fetch it again")
    found = vars(tokenizer)
    expected = {"lower": True, "split": " ", "char_level": False, "oov_token": None, "analyzer": None}
    for setting, value in expected.items():
        if found.get(setting) != value:
            raise ScorerError(f"{path} has {setting} {found.get(setting)!r}, not {value!r}; fetch the pinned version")
    return found


class _KerasTokenizer:
    """Stands in for keras' Tokenizer: bears its attributes and does nothing."""


class _Unpickler(pickle.Unpickler):
    """Admits four harmless names and refuses every other one, so that a pickle cannot call anything."""

    _admitted = {
        ("builtins", "int"): int,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("keras.src.legacy.preprocessing.text", "Tokenizer"): _KerasTokenizer,
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)

    def find_class(self, module_name: str, global_name: str) -> type:
        if (module_name, global_name) not in self._admitted:
            raise pickle.UnpicklingError(f"the pickle asks for {module_name}.{global_name}, which is not admitted")
        return self._admitted[module_name, global_name]


def _vocabulary(tokenizer: Mapping[str, Any], rows: int) -> list[str]:
    """The words with an embedding, the word of number n at place n - 1 (number 0 is the pad)."""
    limit = min(tokenizer["num_words"] or rows, rows)
    words = sorted((number, word) for word, number in tokenizer["word_index"].items() if number < limit)
    if [number for number, _ in words] != list(range(1, len(words) + 1)):
        raise ScorerError(f"the word numbers of {NAME} are not 1, 2, 3 ...; fetch the pinned version")
    return [word for _, word in words]
