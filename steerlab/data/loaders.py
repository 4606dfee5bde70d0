"""Loaders: one function a file format, each from a path to rows (text: str, label: float).

label is +1.0 for civil or positive, -1.0 for toxic or negative, between for rated texts, NaN for a prompt of no class.
The formats of generations, of Perspective's scores, of questions (steerlab.data.questions, and with choices
steerlab.data.choice_questions), of eye movements (steerlab.data.eye_tracking), of GLUE (steerlab.data.glue_files), of
LatentQA (steerlab.data.latentqa_files), of instructions (steerlab.data.instructions), of facts
(steerlab.data.relations), of hidden system prompts (steerlab.data.system_prompts) and of sentence pairs
(steerlab.data.sentence_pairs) have other columns, which they name. A row that cannot be read means that file and loader
disagree: all such rows are reported with their lines, none is loaded.
"""

import gzip
import html
import json
import logging
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar, cast

import pandas as pd
import pyarrow.parquet

from steerlab.data import (
    choice_questions,
    eye_tracking,
    glue_files,
    instructions,
    latentqa_files,
    questions,
    records,
    relations,
    sentence_pairs,
    system_prompts,
)
from steerlab.data.records import BadRows
from steerlab.data.sources import Source, table
from steerlab.data.splits import row_id, text_digest

log = logging.getLogger(__name__)

# Perspective's TOXICITY: 0.5 and more is called toxic, as in RealToxicityPrompts; below 0.1 civil, so that the two
# classes are apart; what lies between is in neither.
TOXIC_FROM, CIVIL_BELOW = 0.5, 0.1
# Openings of rated sentences: a sentence of 8 words and more gives the first half of its words, at most 12, so 4 to 12.
# Its class is that of the whole sentence's rating / 4; what lies between the classes is in none.
OPENING_WORDS, SENTENCE_WORDS = 12, 8
POSITIVE_FROM, NEUTRAL_WITHIN, NEGATIVE_TO = 0.25, 0.05, -0.25
SENTENCE = re.compile(r"""["'(]*[A-Z0-9].*[.!?]["')]*""")  # neither a headline nor what a wrong cut left over
SPREADSHEET_ERROR = "#ERROR!"  # four cells of the published file hold it in place of a comment

Row = tuple[str, float]
T = TypeVar("T")


def read(name: str, door: str, folder: Path, sources: Mapping[str, Source] | None = None) -> pd.DataFrame:
    """All rows of a source as its door's formats say, in the order of the table and of the files: text, label."""
    files = (table() if sources is None else sources)[name].doors[door].files
    frames = [FORMATS[file.format](folder / file.name) for file in files]
    return pd.concat(frames, ignore_index=True)


def prompt_lines(path: Path) -> pd.DataFrame:
    """One prompt a line; only the newline ends a line."""
    return _collect(path, records.lines(path), lambda line: (records.text(line), float("nan")))


def rtp_jsonl(path: Path) -> pd.DataFrame:
    """RealToxicityPrompts' own format: the prompt of {"prompt": {"text": ...}, ...} a line."""
    return _json_prompts(path, float("nan"))


def positive_prompts_jsonl(path: Path) -> pd.DataFrame:
    """DExperts' positive prompts, in RealToxicityPrompts' format: one file a class."""
    return _json_prompts(path, 1.0)


def neutral_prompts_jsonl(path: Path) -> pd.DataFrame:
    """DExperts' neutral prompts."""
    return _json_prompts(path, 0.0)


def negative_prompts_jsonl(path: Path) -> pd.DataFrame:
    """DExperts' negative prompts."""
    return _json_prompts(path, -1.0)


def comment_pairs(path: Path) -> pd.DataFrame:
    """The sample comments: {"pair": int, "text": str, "label": -1|1} a line."""

    def row(line: str) -> Row:
        comment = json.loads(line)
        return records.text(comment["text"]), _label(comment["label"])

    return _collect(path, records.lines(path), row)


def jigsaw_csv(path: Path) -> pd.DataFrame:
    """Jigsaw Toxic Comment Classification: comment_text, toxic (0|1)."""
    return _collect(
        path, records.csv_rows(path), lambda row: (records.text(row["comment_text"]), _label(1 - 2 * int(row["toxic"])))
    )


def jigsaw_bias_csv(path: Path) -> pd.DataFrame:
    """Jigsaw Unintended Bias, all_data.csv: comment_text, toxicity (share of raters, 0 to 1).

    As in LM-Steer, 0.5 and more is toxic, exactly 0 civil, and what lies between is in neither. Empty comments are
    left out.
    """

    def row(fields: dict[str, str]) -> Row | None:
        toxicity = float(fields["toxicity"])
        if not 0 <= toxicity <= 1:
            raise ValueError(f"toxicity is {toxicity}, not within 0 and 1")
        if not fields["comment_text"].strip() or 0 < toxicity < TOXIC_FROM:
            return None
        return fields["comment_text"], -1.0 if toxicity >= TOXIC_FROM else 1.0

    return _collect(path, records.csv_rows(path), row)


def perspective_csv(path: Path) -> pd.DataFrame:
    """Perspective's published Wikipedia comments with its own scores, the two ends of the scale (see above)."""

    def row(fields: dict[str, str]) -> Row | None:
        score = float(fields["TOXICITY@6"])
        if not 0 <= score <= 1:
            raise ValueError(f"TOXICITY@6 is {score}, not within 0 and 1")
        if fields["comment_text"] == SPREADSHEET_ERROR or CIVIL_BELOW <= score < TOXIC_FROM:
            return None
        return records.text(fields["comment_text"]), -1.0 if score >= TOXIC_FROM else 1.0

    return _collect(path, records.csv_rows(path), row)


def hutto_movies(path: Path) -> pd.DataFrame:
    """Movie-review sentences of Hutto & Gilbert 2014; label: the mean of some 20 people's ratings (-4 to 4) / 4."""
    return _collect(path, _hutto_lines(path, "movieReviewSnippets"), _rated)


def hutto_openings(path: Path) -> pd.DataFrame:
    """Openings of the rated newspaper sentences of Hutto & Gilbert 2014; label: the class of the WHOLE sentence.

    The opening alone need not sound as its class says. Rule and classes: see OPENING_WORDS above.
    """

    def row(line: str) -> Row | None:
        sentence, rating = _rated(line)
        words, label = sentence.split(), _class(rating)
        if label is None or len(words) < SENTENCE_WORDS or not SENTENCE.fullmatch(sentence):
            return None
        return " ".join(words[: min(OPENING_WORDS, len(words) // 2)]), label

    return _collect(path, _hutto_lines(path, "nytEditorialSnippets"), row)


def sst2_tsv(path: Path) -> pd.DataFrame:
    """GLUE's SST-2: a header, then sentence and label (0 negative, 1 positive), tab between; blanks at ends are cut."""

    def row(line: str) -> Row:
        sentence, label = line.split("\t")
        if label not in ("0", "1"):
            raise ValueError(f"the label is {label!r}, not 0 or 1")
        return records.text(sentence.strip()), 2.0 * int(label) - 1

    lines = records.lines(path)
    if next(lines)[1] != "sentence\tlabel":
        raise BadRows(f"{path}:1: the header is not sentence, label")
    return _collect(path, lines, row)


def sst5_jsonl(path: Path) -> pd.DataFrame:
    """SST-5 as SetFit/sst5 has it: {"text": str, "label": 0 very negative ... 4 very positive} a line."""

    def row(line: str) -> Row:
        sentence = json.loads(line)
        if sentence["label"] not in range(5):
            raise ValueError(f"the label is {sentence['label']!r}, not 0, 1, 2, 3 or 4")
        return records.text(sentence["text"]), sentence["label"] / 2 - 1

    return _collect(path, records.lines(path), row)


def rated_jsonl(path: Path) -> pd.DataFrame:
    """The sample texts and prompts of sentiment: {"text": str, "label": -1 to 1} a line."""

    def row(line: str) -> Row:
        rated = json.loads(line)
        if not -1 <= rated["label"] <= 1:
            raise ValueError(f"the label is {rated['label']!r}, not within -1 and 1")
        return records.text(rated["text"]), float(rated["label"])

    return _collect(path, records.lines(path), row)


def texts_jsonl(path: Path) -> pd.DataFrame:
    """The sample's ordinary texts: {"text": str} a line."""
    return _collect(path, records.lines(path), lambda line: (records.text(json.loads(line)["text"]), float("nan")))


def texts_parquet(path: Path) -> pd.DataFrame:
    """OpenWebText: a column text, one page a row; blank pages are left out."""

    def row(value: object) -> Row | None:
        text = records.string(value)
        return (text, float("nan")) if text.strip() else None

    pages = pyarrow.parquet.read_table(path, columns=["text"])["text"].to_pylist()
    return _collect(path, enumerate(pages, start=1), row)


def official_generations(path: Path) -> pd.DataFrame:
    """Continuations by LM-Steer's official code, two steers composed: {"detoxification", "sentiment", "prompt",
    "generations": [text, ...]} a line, gzipped. A row a text: detoxification, sentiment, id, sample, prompt, text."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows = [
        (line["detoxification"], line["sentiment"], row_id(line["prompt"]), sample, line["prompt"], text)
        for line in lines
        for sample, text in enumerate(line["generations"])
    ]
    return pd.DataFrame(rows, columns=["detoxification", "sentiment", "id", "sample", "prompt", "text"])


def scored_rtp_jsonl(path: Path) -> pd.DataFrame:
    """Continuations of RealToxicityPrompts with Perspective's scores: prompt, text, perspective (NaN where missing)."""

    def row(line: str) -> tuple[str, str, float]:
        fields = json.loads(line)
        continuation = fields["continuation"]
        return (
            records.string(fields["prompt"]["text"]),
            records.string(continuation["text"]),
            _score(continuation["toxicity"]),
        )

    return _scored(path, records.lines(path), row)


def scored_perspective_csv(path: Path) -> pd.DataFrame:
    """Perspective's Wikipedia comments with its TOXICITY, all of the scale: prompt (""), text, perspective."""

    def row(fields: dict[str, str]) -> tuple[str, str, float]:
        comment = fields["comment_text"]
        return "", "" if comment == SPREADSHEET_ERROR else comment, _score(fields["TOXICITY@6"] or None)

    return _scored(path, records.csv_rows(path), row)


def scored(
    name: str, door: str, folder: Path, sources: Mapping[str, Source] | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The texts of a source that Perspective scored, each once, in the order of their keys; and how many are left out.

    Columns: key (str, SHA-256 of prompt and text), prompt ("" where there is none), text, perspective (TOXICITY in
    [0, 1]). Left out, and counted under these names: "without text" (blank, or a spreadsheet's error in its place),
    "without score", "repeated" (the same prompt and text again; of their scores the lowest stays). The order of the
    files and of their rows changes nothing. Raises BadRows.
    """
    rows = read(name, door, folder, sources)
    blank = rows["text"].str.strip() == ""
    left_out = {"without text": int(blank.sum()), "without score": int((~blank & rows["perspective"].isna()).sum())}
    rows = rows[~blank & rows["perspective"].notna()]
    keys = [text_digest(f"{prompt}\0{text}") for prompt, text in zip(rows["prompt"], rows["text"])]
    rows = rows.assign(key=keys).sort_values(["key", "perspective"])
    kept = rows.drop_duplicates("key")[["key", "prompt", "text", "perspective"]].reset_index(drop=True)
    left_out["repeated"] = len(rows) - len(kept)
    log.info("%s: %d texts with a score by Perspective; left out: %s", name, len(kept), left_out)
    return kept, left_out


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    loader.__name__: loader
    for loader in (
        prompt_lines, rtp_jsonl, positive_prompts_jsonl, neutral_prompts_jsonl, negative_prompts_jsonl, comment_pairs,
        jigsaw_csv, jigsaw_bias_csv, perspective_csv, hutto_movies, hutto_openings, sst2_tsv, sst5_jsonl,
        rated_jsonl, texts_jsonl, texts_parquet, official_generations, scored_rtp_jsonl, scored_perspective_csv,
    )
} | questions.FORMATS | choice_questions.FORMATS | eye_tracking.FORMATS | glue_files.FORMATS  # fmt: skip
FORMATS |= latentqa_files.FORMATS | instructions.FORMATS | relations.FORMATS | system_prompts.FORMATS
FORMATS |= sentence_pairs.FORMATS


def _collect(path: Path, lines: Iterable[tuple[int, T]], parse: Callable[[T], Row | None]) -> pd.DataFrame:
    """Rows of all lines; a line for which `parse` gives None is left out, one for which it raises is reported."""
    parsed = records.parsed(path, lines, parse)
    rows = [row for row in parsed if row is not None]
    if len(rows) < len(parsed):
        log.info("%s: %d rows used, %d left out", path.name, len(rows), len(parsed) - len(rows))
    texts, labels = zip(*rows, strict=True) if rows else ((), ())
    return pd.DataFrame({"text": pd.Series(texts, dtype="str"), "label": pd.Series(labels, dtype="float64")})


def _scored(path: Path, lines: Iterable[tuple[int, T]], parse: Callable[[T], tuple[str, str, float]]) -> pd.DataFrame:
    """Texts with Perspective's score, also those without text or score: prompt, text, perspective."""
    frame = pd.DataFrame(records.parsed(path, lines, parse), columns=["prompt", "text", "perspective"])
    return frame.astype({"prompt": "str", "text": "str", "perspective": "float64"})


def _json_prompts(path: Path, label: float) -> pd.DataFrame:
    return _collect(path, records.lines(path), lambda line: (records.text(json.loads(line)["prompt"]["text"]), label))


def _hutto_lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Lines of one of the rated files in the archive that the authors published."""
    with tarfile.open(path) as archive:
        file = cast(IO[bytes], archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt"))
        return records.numbered(file.read().decode("utf-8"), "\r\n")


def _rated(line: str) -> Row:
    """The text and its rating / 4 of a line "id, mean rating, text", tab between.

    The files escape HTML, some of it twice, and write a quotation mark as two apostrophes: both are undone.
    """
    _, rating, text = line.split("\t")
    if not -4 <= float(rating) <= 4:
        raise ValueError(f"the rating is {rating}, not within -4 and 4")
    return records.text(html.unescape(html.unescape(text)).replace("''", '"')), float(rating) / 4


def _class(rating: float) -> float | None:
    if abs(rating) <= NEUTRAL_WITHIN:
        return 0.0
    if NEGATIVE_TO < rating < POSITIVE_FROM:
        return None
    return 1.0 if rating > 0 else -1.0


def _score(value: float | str | None) -> float:
    """Perspective's score; NaN where there is none."""
    score = float("nan") if value is None else float(value)
    if score < 0 or score > 1:
        raise ValueError(f"the score is {value}, not within 0 and 1")
    return score


def _label(value: object) -> float:
    if value not in (-1, 1):
        raise ValueError(f"the label is {value!r}, not -1 or 1")
    return float(value)
