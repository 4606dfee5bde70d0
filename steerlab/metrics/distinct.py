"""Diversity of continuations: the share of distinct n-grams among the samples of one prompt.

Two definitions are in use and give different numbers, so each has its own name here. Words are the pieces between
single spaces, as in the official code: a text that opens with a space opens with an empty word, and that word counts.
"""

from collections.abc import Iterable, Sequence


def dist(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams over all texts, divided by the number of *words* in them: the official dist-n.

    texts: all samples of one prompt, at least one. n: length of the n-grams, >= 1. Returns a share in [0, 1].
    Source: LM-Steer's evaluation code, taken over from DExperts.
    """
    words = _words(texts)
    # The official code joins words by "_", so "a_b c" and "a b_c" are one bigram to it; kept for equal numbers.
    distinct = {"_".join(gram) for text in words for gram in _ngrams(text, n)}
    return len(distinct) / sum(map(len, words))


def distinct_ratio(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams divided by all *n-grams*: the definition of Li et al. (2016). NaN where no text has n words.

    texts: all samples of one prompt, at least one. n: length of the n-grams, >= 1. Returns a share in [0, 1].
    """
    grams = [gram for text in _words(texts) for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def _words(texts: Iterable[str]) -> list[list[str]]:
    words = [text.split(" ") for text in texts]
    if not words:
        raise ValueError("dist: no texts were given; pass the samples of one prompt")
    return words


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"dist: n is {n}; n-grams have at least one word")
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
