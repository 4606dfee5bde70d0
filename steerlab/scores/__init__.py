"""Scores: one number or a few a text. Scorers of texts alone share one interface; importing it imports no torch."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from steerlab import store
from steerlab.data import tables
from steerlab.progress import progress
from steerlab.store import write_json

RECORD = "scorer.json"


class ScorerError(ValueError):
    """A scorer that cannot be prepared or loaded; the message says which, why and what to do."""


class Scorer(Protocol):
    """Judges texts by themselves, each alone: a text's score does not depend on the texts beside it (to rounding).

    quantity: what the score is: "toxicity" in [0, 1] or "sentiment" in [-1, 1].
    """

    name: str
    version: str
    quantity: Literal["toxicity", "sentiment"]

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, in the order of the texts; NaN for a text that the scorer refuses."""
        ...


def load(path: str, folder: Path | None = None, settings: Mapping[str, Any] = MappingProxyType({})) -> Scorer:
    """The scorer at `module:Class`, ready to score.

    folder: its prepared files, for a scorer that needs some (its module has a `prepare`). settings: keyword arguments
    of its class, for one that takes some. Raises ScorerError for a path outside steerlab.scores and for a scorer
    without its folder.
    """
    module, name = _module(path)
    if not hasattr(module, "prepare"):
        return getattr(module, name)(**settings)
    if folder is None:
        raise ScorerError(f"scorer {path!r} is given no folder of prepared files; prepare it and pass the folder")
    return getattr(module, name)(folder, **settings)


def prepare(
    path: str, folder: Path, *, source: Path | None = None, definition: Mapping[str, Any] | None = None
) -> None:
    """Write the files that the scorer at `module:Class` is loaded from, with a scorer.json {name, version, ...}.

    source: the raw folder of its source, or for a classifier of the hub a mirror; definition: what the configuration
    says of a classifier; folder: absent or empty. Raises ScorerError, also for a scorer without files.
    """
    module, _ = _module(path)
    if not hasattr(module, "prepare"):
        raise ScorerError(f"scorer {path!r} needs no prepared files; load it as it is")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ScorerError(f"{folder} is not empty; give scorer {path!r} a new folder")
    module.prepare(source, folder, **({} if definition is None else {"definition": definition}))


def chosen(scorers: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> list[tuple[Any, ...]]:
    """The scorers of a spec as arguments of `load`; folders: of those prepared, in their order.

    scorers: {"scorer": path, "prepared": bool}, with "settings" for one that takes some.
    """
    prepared = iter(folders)
    return [(one["scorer"], next(prepared) if one["prepared"] else None, one.get("settings", {})) for one in scorers]


def label(scorer: Scorer) -> str:
    """How tables name a scorer: `name==version`. Scores of two versions are never mixed."""
    return f"{scorer.name}=={scorer.version}"


def texts(
    generations: pd.DataFrame,
    scorers: Sequence[tuple[Any, ...]],
    prompts: Mapping[str, str] | None = None,
    *,
    work: Path | None = None,
    share: store.Share = store.WHOLE,
) -> pd.DataFrame:
    """One row a scorer and generation: the generations without text and tokens, with quantity, scorer and score.

    Rows of the first scorer come first, in the order of the generations. scorers: arguments of `load`, a tuple each.
    prompts: id -> plain prompt. Sentiment is that of prompt and continuation together, as in LM-Steer (without
    `prompts` that of the continuation); toxicity is that of the continuation alone, an empty one scored as a newline.
    A scorer sees each distinct text once. Raises KeyError for an id without a prompt.
    work: where the finished slices of a scorer that cuts its texts into slices lie; share: those of the slices that are
    asked for. Of less than all there are only rows of such scorers, and NaN for a text of no slice asked for.
    """
    asked = [(number, one) for number, one in enumerate(scorers) if share == store.WHOLE or _has_slices(one[0])]
    bar = progress(asked, total=len(asked), desc="scores", unit="scorer")
    once = (_Once(load(*one), work and work / f"{number}", share) for number, one in bar)
    return pd.concat([scored(generations, scorer, prompts) for scorer in once], ignore_index=True)


def scored(generations: pd.DataFrame, scorer: Scorer, prompts: Mapping[str, str] | None = None) -> pd.DataFrame:
    """`texts` for one scorer that is loaded; it is given every text, repeated ones too."""
    judged = _judged(generations, scorer.quantity, prompts)
    about = generations.drop(columns=["text", "tokens"], errors="ignore")
    return about.assign(quantity=scorer.quantity, scorer=label(scorer), score=scorer.score(judged))


def by_slices(
    ids: Sequence[str],
    size: int,
    compute: Callable[[list[str]], pd.DataFrame],
    *,
    work: Path,
    share: store.Share,
    desc: str,
) -> pd.DataFrame:
    """The rows that `compute` gives for `size` ids at a time, sorted by tables.ORDER; finished slices lie in `work`.

    share: those of the slices that are asked for; the rows are theirs alone.
    """
    slices = [list(ids[start : start + size]) for start in range(0, len(ids), size)]
    names = [f"{number:05d}" for number in range(len(slices))]
    how = {"desc": desc, "unit": "slice", "share": share, "columns": tables.ORDER}
    rows = store.resume(work, names, lambda index: compute(slices[index]), **how)
    return rows.sort_values(tables.ORDER, ignore_index=True)


def write_record(folder: Path, **facts: object) -> None:
    """Write scorer.json, which says what the prepared folder is."""
    write_json(folder / RECORD, facts)


def read_record(folder: Path) -> dict[str, Any]:
    """What scorer.json says; raises ScorerError for a folder that is not prepared."""
    if not (folder / RECORD).is_file():
        raise ScorerError(f"{folder} is no prepared scorer: it has no {RECORD}; prepare it first")
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))


def _module(path: str) -> tuple[ModuleType, str]:
    module, _, name = path.partition(":")
    if not module.startswith("steerlab.scores."):
        raise ScorerError(f"{path!r} is no scorer of this project; give steerlab.scores.<file>:<Class>")
    return importlib.import_module(module), name


def _has_slices(path: str) -> bool:
    module, name = _module(path)
    return hasattr(getattr(module, name), "slices")


def _judged(generations: pd.DataFrame, quantity: str, prompts: Mapping[str, str] | None) -> list[str]:
    if quantity == "toxicity":
        return [text or "\n" for text in generations["text"]]
    if prompts is None:
        return list(generations["text"])
    return [prompts[id_] + text for id_, text in zip(generations["id"], generations["text"])]


class _Once:
    """A scorer that gives each distinct text to another one once, and keeps finished slices in a folder."""

    def __init__(self, scorer: Scorer, work: Path | None, share: store.Share) -> None:
        self.name, self.version = scorer.name, scorer.version
        self.quantity: Literal["toxicity", "sentiment"] = scorer.quantity
        self._scorer, self._work, self._share = scorer, work, share

    def score(self, texts: Sequence[str]) -> np.ndarray:
        codes, distinct = pd.factorize(np.array(texts, dtype=object))
        slices = getattr(self._scorer, "slices", None)
        if self._work is None or slices is None:
            return self._scorer.score(list(distinct))[codes]
        return self._by_slices(list(distinct), slices(list(distinct)), self._work)[codes]

    def _by_slices(self, texts: list[str], slices: list[list[int]], work: Path) -> np.ndarray:
        def compute(index: int) -> pd.DataFrame:
            places = slices[index]
            return pd.DataFrame({"place": places, "score": self._scorer.score([texts[place] for place in places])})

        names = [f"{number:05d}" for number in range(len(slices))]
        how = {"desc": self.name, "unit": "slice", "share": self._share, "columns": ["place", "score"]}
        rows = store.resume(work, names, compute, **how)
        scores = np.full(len(texts), np.nan)
        scores[rows["place"].to_numpy(dtype=int)] = rows["score"]
        return scores
