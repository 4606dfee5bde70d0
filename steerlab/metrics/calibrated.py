"""Scores on Perspective's scale: a scorer's map, how it is read and applied, and what tables call its rows.

Apart from how maps are fitted and judged (steerlab.analyses.calibration), so that a change there reruns no metrics.
Planning asks this module for labels and shipped maps: numpy and pandas are imported where scores are computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

RAW, CALIBRATED = "raw", "calibrated"  # the scales that a scorer's numbers stand on
SUFFIX = f", {CALIBRATED}"  # ends the label of a scorer whose scores went through its map
SHIPPED = Path(__file__).parents[1] / "reference" / "calibration"  # the calibration that comes with the project
SHIPPED_MAPS = SHIPPED / "maps.json"


@dataclass(frozen=True)
class Map:
    """A monotone map from a local score to Perspective's: straight lines between knots, level outside them.

    scores: local scores, strictly up; perspective: their values in [0, 1], never down; n: the texts it was fitted on.
    """

    scores: tuple[float, ...]
    perspective: tuple[float, ...]
    n: int


def apply(fitted: Map, scores: ArrayLike) -> NDArray[np.float64]:
    """Local scores of any shape on Perspective's scale, float64 in [0, 1]; NaN stays NaN.

    A value is what Perspective gives on average to texts with this local score. So means of texts are on its scale;
    maxima and shares above a limit come out too low, because Perspective's own scores spread around that average.
    """
    import numpy as np

    return np.interp(np.asarray(scores, dtype=float), fitted.scores, fitted.perspective)


def label(scorer: str) -> str:
    """How tables name a scorer (`name==version`) whose scores went through its map."""
    return scorer + SUFFIX


def with_calibrated(scores: pd.DataFrame, maps: Mapping[str, Map]) -> pd.DataFrame:
    """The rows of scores and after them, for each scorer with a map, the same rows calibrated, under its `label`.

    scores: scorer, score and any other columns. maps: by scorer, also of scorers that the scores lack.
    """
    import pandas as pd

    further = [
        rows.assign(scorer=label(str(scorer)), score=apply(maps[str(scorer)], rows["score"]))
        for scorer, rows in scores.groupby("scorer", sort=False)
        if scorer in maps
    ]
    return pd.concat([scores, *further], ignore_index=True)


def write_maps(maps: Mapping[str, Map], path: Path) -> None:
    """JSON: scorer label -> {"n": texts fitted on, "knots": [[local score, Perspective's], ...]}."""
    lines = [
        f"{json.dumps(scorer)}: {json.dumps({'n': one.n, 'knots': list(zip(one.scores, one.perspective))})}"
        for scorer, one in sorted(maps.items())
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_maps(path: Path = SHIPPED_MAPS) -> dict[str, Map]:
    """The maps by scorer label, from a file of `write_maps`, by default from the one that ships."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    knots = {scorer: tuple(zip(*one["knots"])) for scorer, one in plain.items()}
    return {scorer: Map(*knots[scorer], n=one["n"]) for scorer, one in plain.items()}
