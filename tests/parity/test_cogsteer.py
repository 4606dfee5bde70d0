"""CogSteer against PostMindLab/cogsteer and cooperleong00/ToxificationReversal: the contrast, and words' curves."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from steerlab.analyses.word_states import first_component, word_states, word_tokens
from steerlab.methods.cogsteer import NORM_EXPONENT, contrasted
from steerlab.metrics import ranks
from tests.laws.subjects import handle
from tests.parity.official import compare, definitions

SENTENCES = [["The", "quick-witted", "fox,"], ["a", "b", "banana"], ["don't", "stop", "now", "please"]]


def hook(repository: str, path: str) -> Any:
    registry = SimpleNamespace(register_module=lambda: lambda each: each)
    given = {"InnerDetoxHook": registry, "F": functional, "partial": partial, "torch": torch}
    found = definitions(repository, path, "BaseInnerDetoxHook", **given)
    return found.BaseInnerDetoxHook(norm_exp=NORM_EXPONENT, neg_sim_exp=0, renorm=True)


def drawn(seed: int) -> Tensor:
    """Outputs of heads, (batch, heads, tokens, head size)."""
    return torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(v: Tensor, t: Tensor) -> Tensor:
    """v with the last token contrasted."""
    last = contrasted(v[:, :, -1], t[:, :, -1] - v[:, :, -1], 1.0)
    return torch.cat([v[:, :, :-1], last[:, :, None]], 2)


@pytest.mark.parametrize("folder", ["gpt2", "mistral"])
def test_the_contrast_of_the_last_token(folder: str) -> None:
    base, toxic = drawn(0), drawn(1)
    official = hook("cogsteer", f"tox/{folder}/models/innerdetox_hook.py")
    theirs = official.reversal_func(None, None, base.clone(), module_name="a", attn_output={"a": toxic})
    compare(f"CogSteer, contrast, {folder}", ours(base, toxic), theirs, 1e-12)


def test_the_contrast_is_that_of_toxification_reversal() -> None:
    base, toxic = drawn(0), drawn(1)
    official = hook("ToxificationReversal", "models/gpt2/innerdetox_hook.py")
    official.read_hook(None, None, torch.cat([base, toxic]), module_name="a")
    official.mem["a"]["neg_end"] = None  # of a prompt that is not there: neg_sim_exp is 0
    theirs = official.write_hook(None, None, base.clone(), module_name="a")
    compare("Toxification Reversal, contrast", ours(base, toxic), theirs, 1e-12)


@pytest.fixture(scope="module")
def correlation() -> Any:
    pooling = ("Embeding_reduce", "Hidden_reduce", "get_len_sub")
    names = (*pooling, "calcaulate_correlatuons", "cal_relation", "F_analysis_pca")
    given = {"torch": torch, "PCA": PCA, "math": math, "pd": pd}
    given |= {"pearsonr": pearsonr, "kendalltau": kendalltau, "spearmanr": spearmanr}
    return definitions("cogsteer", "correlation/utils.py", *names, **given)


def test_the_states_of_words(correlation: Any) -> None:
    """The maximum over a word's tokens, given how many each has."""
    model, theirs = handle("llama"), []
    for words in SENTENCES:
        ids, pairs = word_tokens(model.info.tokenizer, words)
        counts = [sum(word == place for _, word in pairs) for place in range(len(words))]
        states = model.load()(torch.tensor([ids]), output_hidden_states=True).hidden_states
        of_words = [token for token, _ in pairs]  # blanks, tokens of their own here, are in no word
        theirs.append(correlation.Hidden_reduce(counts, [layer[0, of_words] for layer in states]))
    found = word_states(model, SENTENCES, batch_sentences=2)
    compare("CogSteer, states of words but for the last layer", found[:-1], torch.cat(theirs, 1)[:-1], 1e-5)
    # The last is taken after the final norm there, and before it here, as the others are.
    assert not torch.allclose(found[-1], torch.cat(theirs, 1)[-1], atol=1e-2)


def test_their_counts_of_tokens_go_wrong_where_a_piece_also_stands_in_the_word_before(correlation: Any) -> None:
    tokens = {"input_ids": [0, 1], "offset_mapping": [(0, 6), (7, 9)]}  # one token a word
    tokenizer = SimpleNamespace(encode_plus=lambda text, **settings: tokens)
    assert correlation.get_len_sub("banana an", tokenizer) == [2, 0]
    assert correlation.get_len_sub("banana is", tokenizer) == [1, 1]


def test_the_correlations_of_a_layer(correlation: Any) -> None:
    draw = np.random.default_rng(0)
    states = torch.from_numpy(draw.normal(size=(40, 7)))
    feature = draw.gamma(2.0, size=40)
    feature[:5] = 0  # words that nobody looked at
    sentences = [slice(0, 15), slice(15, 40)]
    theirs, left_out = correlation.F_analysis_pca(
        [feature[each].tolist() for each in sentences], [states[each] for each in sentences]
    )
    component = first_component(states)[:, None]
    assert left_out == []
    for name in ("pearson", "spearman", "kendall"):
        mine = float(np.squeeze(getattr(ranks, name)(component, feature[:, None])))
        # Another solver of the same component.
        compare(f"CogSteer, {name}, but for the sign", abs(mine), abs(theirs[f"{name}_cor"]), 1e-6)
