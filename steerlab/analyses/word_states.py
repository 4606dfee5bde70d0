"""Hidden states of words: what a model makes of each word of a sentence, layer by layer.

A sentence is read once, alone, and every layer's states are taken in that forward. A word's state is the element-wise
maximum over its tokens (CogSteer's code). Which tokens are a word's is known by characters: the tokenizer's offsets
against the words that whitespace parts, never by comparing strings.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from steerlab import sites
from steerlab.metrics.eye_tracking import EMBEDDINGS
from steerlab.models import ModelHandle, Tokenizer, opens_with_bos, pad
from steerlab.progress import progress
from steerlab.sites import Site


def layers_of(handle: ModelHandle) -> list[int]:
    """EMBEDDINGS, and the blocks of a model: transformers' hidden_states without the final norm on its last one."""
    return [EMBEDDINGS, *range(sites.number_of_layers(handle.info.config))]


def word_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a sentence, and (token, word) of each token that covers a character of a word, tokens up.

    words: without whitespace; the sentence is they, one blank between. A token over two words belongs to both, special
    tokens to none. Raises ValueError for a word without any token.
    """
    text = " ".join(words)
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = ends - [len(word) for word in words]
    options = {"return_offsets_mapping": True, "add_special_tokens": not opens_with_bos(tokenizer, text)}
    read, pairs = tokenizer(text, **options), []
    for token, (start, end) in enumerate(read["offset_mapping"]):
        if end > start:
            first, beyond = np.searchsorted(ends, start, side="right"), np.searchsorted(starts, end, side="left")
            pairs += [(token, word) for word in range(first, beyond)]
    if missing := sorted(set(range(len(words))) - {word for _, word in pairs}):
        raise ValueError(f"word {words[missing[0]]!r} of {text!r} has no token; take the sentence out of the data")
    return list(read["input_ids"]), pairs


def word_states(handle: ModelHandle, sentences: Sequence[Sequence[str]], *, batch_sentences: int) -> Tensor:
    """(layers, words, hidden) states of all words in their order, layers as in `layers_of`, in the model's dtype.

    sentences: their words. Batches are of sentences of like length.
    """
    layers = layers_of(handle)
    at = [Site("embeddings") if layer == EMBEDDINGS else Site("block_output", layer) for layer in layers]
    begins = np.cumsum([0, *map(len, sentences)])
    dtype = getattr(torch, handle.dtype)
    found = torch.empty(len(layers), int(begins[-1]), handle.info.config.hidden_size, dtype=dtype)
    for rows, states, tokens in _read(handle, sentences, at, batch_sentences):
        line, token, word = (torch.tensor(each, device=handle.device) for each in zip(*tokens))
        here = torch.tensor([place for row in rows for place in range(begins[row], begins[row + 1])])
        for place, site in enumerate(at):
            of_tokens = states[site].to(handle.device)[line, token]
            pooled = of_tokens.new_full((len(here), of_tokens.shape[1]), -torch.inf)
            index = word[:, None].expand_as(of_tokens)
            found[place, here] = pooled.scatter_reduce(0, index, of_tokens, "amax").cpu()
    if not found.isfinite().all():
        raise FloatingPointError(f"{handle.info.name}: a hidden state is not finite; run it in another dtype")
    return found


def first_component(states: Tensor) -> NDArray[np.float64]:
    """(words,) scores on the first principal component of a layer's states, (words, hidden); the sign is arbitrary."""
    fitted = PCA(n_components=1, svd_solver="arpack", random_state=0)
    return fitted.fit_transform(states.double().numpy())[:, 0]


@torch.no_grad()
def _read(
    handle: ModelHandle, sentences: Sequence[Sequence[str]], at: Sequence[Site], batch_sentences: int
) -> Iterator[tuple[list[int], dict[Site, Tensor], list[tuple[int, int, int]]]]:
    """A batch at a time: its sentences, the states of all their tokens, and (line, token, word of the batch)."""
    model, tokenizer = handle.load(), handle.info.tokenizer
    read = [word_tokens(tokenizer, words) for words in sentences]
    by_length = sorted(range(len(sentences)), key=lambda row: (len(read[row][0]), row))
    starts = range(0, len(sentences), batch_sentences)
    for start in progress(starts, total=len(starts), desc="states of words", unit="batch"):
        rows = by_length[start : start + batch_sentences]
        ids, mask = pad(
            [read[row][0] for row in rows], side="right", pad_id=tokenizer.pad_token_id or 0, device=handle.device
        )
        position_ids = (mask.cumsum(1) - 1).clamp(min=0)
        with sites.without_head(model), sites.capture(model, at) as states:
            model(input_ids=ids, attention_mask=mask, position_ids=position_ids, use_cache=False)
        tokens, before = [], 0
        for line, row in enumerate(rows):
            tokens += [(line, token, before + word) for token, word in read[row][1]]
            before += len(sentences[row])
        yield rows, states, tokens
