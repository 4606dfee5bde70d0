"""States of words: which tokens are a word's, their maximum, and the same numbers however sentences are batched."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from steerlab import models
from steerlab.analyses.word_states import EMBEDDINGS, first_component, layers_of, word_states, word_tokens
from steerlab.models import ModelHandle
from steerlab.tiny_models import byte_tokenizer

SENTENCES = ["The theatre, the thé - the end.", "Naïve co-op … 日本 said: “the”", "a", "the the the"]


def gpt2_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges, blanks in front of words: GPT-2's kind."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(SENTENCES * 3, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, min_frequency=2))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=None)


def wordpiece() -> PreTrainedTokenizerFast:
    """Pieces inside words, and a special token in front of each text."""
    core = Tokenizer(
        WordPiece({"[UNK]": 0, "[CLS]": 1, "un": 2, "##un": 3, "##d": 4, "o": 5, "##o": 6}, unk_token="[UNK]")
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, cls_token="[CLS]", unk_token="[UNK]")


def spans(tokenizer, words):
    """By word, the characters that its tokens cover, as the tokenizer's offsets have them."""
    offsets = tokenizer(" ".join(words), return_offsets_mapping=True)["offset_mapping"]
    ids, pairs = word_tokens(tokenizer, words)
    assert len(ids) == len(offsets)
    return [[offsets[token] for token, of in pairs if of == word] for word in range(len(words))]


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), gpt2_like()], ids=["bytes", "gpt2"])
@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_tokens_of_a_word_cover_its_characters_and_no_other_words(tokenizer, sentence):
    words, begin = sentence.split(), 0
    for word, of_word in zip(words, spans(tokenizer, words), strict=True):
        end = begin + len(word)
        covered = {place for start, stop in of_word for place in range(start, stop)}
        assert set(range(begin, end)) <= covered <= set(range(begin - 1, end + 1))  # a blank may belong to a token
        begin = end + 1


def test_a_word_of_several_bytes_a_letter_has_all_its_tokens():
    _, pairs = word_tokens(byte_tokenizer(), ["thé", "日本"])
    assert pairs == [(0, 0), (1, 0), (2, 0), (3, 0), *((token, 1) for token in range(5, 11))]


def test_a_piece_that_a_word_has_twice_is_counted_twice_and_never_with_another_word():
    """Looking for pieces in words by their letters takes "un" of "ununo" for the first word that has it."""
    tokenizer = wordpiece()
    ids, pairs = word_tokens(tokenizer, ["un", "ununo", "o"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "un", "un", "##un", "##o", "o"]
    assert pairs == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2)]


def test_punctuation_belongs_to_the_word_that_it_stands_at():
    ids, pairs = word_tokens(wordpiece(), ["un,", "-", "o."])
    assert len(ids) == 6 and pairs == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)]


def test_a_token_over_two_words_belongs_to_both():
    core = Tokenizer(Unigram([("<unk>", 0.0), ("of the", -1.0), ("k", -2.0), ("f", -9.0)], unk_id=0))
    _, pairs = word_tokens(PreTrainedTokenizerFast(tokenizer_object=core), ["kof", "the"])
    assert pairs == [(0, 0), (1, 0), (1, 1)]


def test_a_word_without_a_token_is_told():
    core = Tokenizer(BPE(vocab={"a": 0}, merges=[]))  # knows no other letter and drops them
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="word 'x' of 'a x' has no token; take the sentence out of the data"):
        word_tokens(PreTrainedTokenizerFast(tokenizer_object=core), ["a", "x"])


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def handle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    models.prepare({"kind": "random", "family": request.param, "layers": 3, "seed": 0}, folder, name=request.param)
    return ModelHandle(folder)


WORDS = [sentence.split() for sentence in SENTENCES]


@torch.no_grad()
def test_a_words_state_is_the_maximum_over_its_tokens_of_transformers_hidden_states(handle: ModelHandle):
    found = word_states(handle, WORDS, batch_sentences=3)
    tokenizer, at = handle.info.tokenizer, 0
    for words in WORDS:
        ids = tokenizer(" ".join(words), return_tensors="pt")["input_ids"]
        states = handle.load()(ids, output_hidden_states=True).hidden_states
        token = 0
        for word in words:
            bytes_ = len(word.encode())
            for layer in range(len(states) - 1):  # the last one is after the final norm
                expected = states[layer][0, token : token + bytes_].amax(0)
                torch.testing.assert_close(found[layer, at], expected, rtol=1e-4, atol=1e-5)
            token, at = token + bytes_ + 1, at + 1
    assert at == found.shape[1] and layers_of(handle) == [EMBEDDINGS, 0, 1, 2] and found.shape[0] == 4


def test_batches_change_nothing(handle: ModelHandle):
    alone, together = (word_states(handle, WORDS, batch_sentences=n) for n in (1, 4))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_the_first_component_is_that_of_an_exact_decomposition():
    states = torch.tensor(np.random.default_rng(0).normal(size=(60, 8)) * np.arange(1, 9) + 5, dtype=torch.float32)
    exact = PCA(svd_solver="full").fit_transform(states.double().numpy())[:, 0]
    found = first_component(states)
    np.testing.assert_allclose(np.abs(found), np.abs(exact), atol=1e-8)
    assert abs(np.corrcoef(found, exact)[0, 1]) == pytest.approx(1)
