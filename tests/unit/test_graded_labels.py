"""Labels that are ratings, such as of sentiment: methods that learn from two classes learn from their signs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from steerlab.data.tables import classes
from steerlab.experiment.registry import METHODS
from steerlab.methods import load_class
from tests.laws.subjects import capture, handle, training_texts

RATINGS = [0.9, 0.05, 0.3, 1.0, 0.5, 0.75, -0.2, -1.0, -0.01, -0.6]  # of the wished texts, then of the others


@given(st.lists(st.floats(-1, 1), max_size=8))
def test_a_class_is_the_sign_of_the_label(labels):
    found = classes(pd.DataFrame({"label": labels}, dtype=float))
    assert found.dtype == np.float64 and found.tolist() == [(label > 0) - (label < 0) for label in labels]


def tensors(method: str, data: pd.DataFrame, folder: Path) -> dict[str, torch.Tensor]:
    """What a method learns from these texts on a tiny model."""
    line = METHODS[method]
    states = capture(handle("llama"), list(data.text), line.captures, line.positions)
    load_class(line.steer).fit(handle("llama"), data, states, seed=0).save(folder)
    return load_file(next(folder.glob("*.safetensors")))


@pytest.mark.parametrize("method", ["caa", "iti", "slim"])
def test_ratings_teach_what_their_signs_teach(method: str, tmp_path: Path):
    data = training_texts()
    assert np.sign(RATINGS).tolist() == data.label.tolist()
    signs, ratings = (
        tensors(method, data.assign(label=labels), tmp_path / name)
        for name, labels in (("signs", data.label), ("ratings", RATINGS))
    )
    assert signs and signs.keys() == ratings.keys()
    for name, tensor in signs.items():
        assert torch.equal(ratings[name], tensor), name


@pytest.mark.parametrize("method", ["caa", "iti", "slim"])
def test_a_text_rated_neither_way_teaches_nothing(method: str, tmp_path: Path):
    data = training_texts()
    neither = data.assign(label=[*data.label[:-1], 0.0])
    other = neither.assign(text=[*data.text[:-1], "a kettle is a vessel"])
    one, two = (tensors(method, rows, tmp_path / name) for name, rows in (("one", neither), ("two", other)))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
