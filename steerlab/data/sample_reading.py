"""SYNTHETIC reading data for the sample door: made by this file, read by nobody.

The sentences are those of the sample's ordinary texts. Their five features follow a crude model of reading: longer and
rarer words are looked at longer, later words of a sentence a little less, short ones are sometimes skipped, and the
rest is noise. They exist so that the analysis runs without a corpus; nothing found with them says anything of readers.

`python -m steerlab.data.sample_reading` writes the two files into steerlab/data/sample/ (a test holds their bytes).
"""

import json
import math
import re
from collections import Counter
from pathlib import Path
from statistics import NormalDist

from steerlab.data.eye_tracking import FEATURES
from steerlab.data.sources import SAMPLE
from steerlab.data.splits import share

SENTENCES = 3  # of each paragraph, its first ones
PARAGRAPHS = {"synthetic_reading_1.json": (0, 12), "synthetic_reading_2.json": (12, 24)}  # of ordinary_texts.jsonl
# What a feature adds to what all share: level, scale, share of noise of its own, chance to be 0 for a skipped word.
_OF_FEATURE = {
    "gd": (0.38, 0.10, 0.6),
    "trt": (0.25, 0.09, 0.7),
    "ffd": (0.48, 0.06, 0.9),
    "sfd": (0.42, 0.07, 0.9),
    "gpt": (0.24, 0.09, 1.0),
}


def contents() -> dict[str, str]:
    """The text of each file by its name, in the published normalised form (steerlab.data.eye_tracking)."""
    lines = (SAMPLE / "ordinary_texts.jsonl").read_text(encoding="utf-8").splitlines()
    paragraphs = [re.split(r"(?<=[.!?])\s+", json.loads(line)["text"])[:SENTENCES] for line in lines]
    counts = Counter(_bare(word) for paragraph in paragraphs for text in paragraph for word in text.split())
    found = {}
    for name, (begin, end) in PARAGRAPHS.items():
        sentences = [sentence for paragraph in paragraphs[begin:end] for sentence in paragraph]
        read = [_read(sentence, counts) for sentence in sentences]
        features = [[of_sentence[place] for of_sentence in read] for place in range(len(FEATURES))]
        found[name] = json.dumps({"sents": sentences, "eye_fs": features}, separators=(",", ":")) + "\n"
    return found


def _read(sentence: str, counts: Counter) -> list[list[float]]:
    """One list a feature, one value a word."""
    values: list[list[float]] = [[] for _ in FEATURES]
    for place, word in enumerate(sentence.split()):
        bare = _bare(word)
        effort = 0.5 * (len(bare) - 5) / 2.5 - 0.35 * (math.log(counts[bare]) - 1) - 0.02 * place
        effort += 0.6 * _noise(sentence, place, "word") + 0.3 * _noise(sentence, -1, "sentence")
        is_skipped = len(bare) <= 3 and share(f"{sentence}\0{place}", "skipped") < 0.1
        for of_feature, (name, (level, scale, own)) in zip(values, _OF_FEATURE.items()):
            value = max(level + scale * (effort + own * _noise(sentence, place, name)), 0.01)
            of_feature.append(0.0 if is_skipped else round(value, 4))
    return values


def _bare(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


def _noise(sentence: str, place: int, what: str) -> float:
    """A standard normal number that the arguments alone decide, in every version of every library."""
    return NormalDist().inv_cdf(min(max(share(f"{sentence}\0{place}", what), 1e-9), 1 - 1e-9))


def write(folder: Path) -> None:
    """Write the files into a folder."""
    for name, content in contents().items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(SAMPLE)
