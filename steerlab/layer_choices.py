"""Choosing the one block that is adapted: by a rule, from figures that no test row has touched.

A choice has `candidates`, a row a block with its figures, and `picks`, the block that each rule names. The paper
(CogSteer) keeps to the middle third of the depth, where the reading curves are highest: see `middle_third`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

BY_READING = ("middle_peak", "peak")  # the rules that go by eye movements and need no training
# Of the curves of steerlab.metrics.eye_tracking, whose code is no part of what a steer depends on: the rows that count.
_SPEARMAN, _WITHOUT_FIRST, _MEAN, _POOLED = "spearman", "spearman_without_first_words", "mean", "all"


def middle_third(layers: int) -> range:
    """The blocks of the middle third of a model with so many: 10 to 19 of 30. A model of one or two has them all."""
    return range(layers // 3, layers - layers // 3) if layers > 2 else range(layers)


def buckets(layers: int) -> dict[str, range]:
    """The thirds of the depth by the paper's names: early, middle, late."""
    middle = middle_third(layers)
    return {"early": range(middle.start), "middle": middle, "late": range(middle.stop, layers)}


def by_validation(scores: Mapping[int, float], layers: int) -> dict[str, Any]:
    """The choice from a validation score a block, the higher the better; of equal ones the lower block.

    scores: block -> score, of some blocks or all, one of the middle third at least; layers: blocks of the model.
    picks: `validation_middle` (the paper's rule), the best of the middle third; `validation`, the best of all given.
    Raises ValueError where no block of the middle third has a score.
    """
    middle = {layer: score for layer, score in scores.items() if layer in middle_third(layers)}
    if not middle:
        raise ValueError(
            f"no block of the middle third has a score, only {sorted(scores)}; sweep {middle_third(layers)}"
        )
    return {
        "candidates": [{"layer": layer, "value": scores[layer]} for layer in sorted(scores)],
        "picks": {"validation_middle": best(middle), "validation": best(scores)},
    }


def by_sweep(
    metrics: pd.DataFrame,
    *,
    objective: str,
    goal: Literal["lower", "raise"],
    scorer: str,
    layers: Mapping[str, int],
    model_layers: int,
) -> dict[str, Any]:
    """The choice among variants of a method that adapt one block each, by a metric of their continuations.

    metrics: the project's metrics columns of these variants on dev prompts; the rows over all seeds and prompts count.
    layers: variant -> block; model_layers: blocks of the model. Fluency has no say, as in the paper.
    Raises ValueError for rows of another split than dev, for a variant without its one value, and as `by_validation`.
    """
    others = sorted(set(metrics["split"]) - {"dev"})
    if others:
        raise ValueError(f"layer choices: got metrics of split {others[0]}; choose from dev metrics alone")
    rows = metrics[(metrics.seed.astype(str) == "all") & (metrics.prompts == "all") & (metrics.metric == objective)]
    rows = rows[(rows.scorer == scorer) & (rows.strength != 0)]
    counts = {name: int((rows.method == name).sum()) for name in layers}
    odd = [name for name, count in counts.items() if count != 1]
    if odd:
        raise ValueError(f"layer choices: {odd[0]} has {counts[odd[0]]} values of {objective} by {scorer}; give it one")
    sign = {"lower": -1.0, "raise": 1.0}[goal]
    values = rows.set_index("method")["value"]
    scores = {layer: sign * float(values[name]) for name, layer in layers.items()}
    middle = middle_third(model_layers)
    return {
        "objective": objective,
        "goal": goal,
        "scorer": scorer,
        "middle": [middle.start, middle.stop],
        **by_validation(scores, model_layers),
    }


def by_reading(curves: pd.DataFrame) -> dict[str, Any]:
    """The choice from how layers go with eye movements, the mean over features and corpora of |Spearman|.

    curves: as from steerlab.metrics.eye_tracking; of its layers the blocks count, not the embeddings.
    picks: `middle_peak` (this project's rule where nothing is trained), the best of the middle third; `peak`, the best
    of all. stability: the same picks by each corpus alone, and by all words but the sentences' first.
    Raises ValueError where there are no such curves.
    """
    rows = curves[(curves["feature"] == _MEAN) & (curves["layer"] >= 0)]
    corpora = list(dict.fromkeys(rows["corpus"]))
    if not corpora:
        raise ValueError("the curves of eye movements have no block; correlate the eye movements again")
    pooled = _POOLED if _POOLED in corpora else corpora[0]

    def curve(corpus: str, measure: str = _SPEARMAN) -> pd.DataFrame:
        return rows[(rows["corpus"] == corpus) & (rows["measure"] == measure)].sort_values("layer")

    counted = curve(pooled)
    figures = counted[["layer", "value", "low", "high", "p_holm"]].to_dict("records")
    alone = {corpus: _peaks(curve(corpus)) for corpus in corpora if corpus != _POOLED}
    return {
        "data": str(counted["data"].iloc[0]),
        "corpora": list(alone),
        "candidates": [one | {"layer": int(one["layer"])} for one in figures],
        "buckets": {name: list(blocks) for name, blocks in buckets(len(counted)).items()},
        "picks": _peaks(counted),
        "stability": alone | {"without first words": _peaks(curve(pooled, _WITHOUT_FIRST))},
    }


def _peaks(curve: pd.DataFrame) -> dict[str, int]:
    scores = {int(layer): float(value) for layer, value in zip(curve["layer"], curve["value"])}
    middle = middle_third(len(scores))
    return {"middle_peak": best({layer: scores[layer] for layer in middle}), "peak": best(scores)}


def best(scores: Mapping[int, float]) -> int:
    """The block with the highest score, of equal ones the lowest."""
    return max(sorted(scores), key=lambda layer: scores[layer])


def picked_layer(choice: Mapping[str, Any], rule: str) -> int:
    """The block that a rule names in a choice; raises ValueError for a rule that the choice was not made by."""
    if rule not in choice["picks"]:
        raise ValueError(f"layer_rule {rule!r} is none of this choice's: {', '.join(sorted(choice['picks']))}")
    return int(choice["picks"][rule])


def another_layer(layers: int, picked: int, seed: int) -> int:
    """A block drawn by the seed, any but the picked one: the control of a pick. Raises ValueError for one block."""
    others = [layer for layer in range(layers) if layer != picked]
    if not others:
        raise ValueError("a model of one block has no other to draw")
    return random.Random(f"another layer {seed}").choice(others)


def named(name: str, layers: int, picked: int | None = None, *, seed: int = 0) -> list[int]:
    """The blocks that a name stands for: "none", "all", "picked", "random" (any but the picked one, drawn by the seed),
    or the index of one.

    Raises ValueError for another name, a block that the model has not, or "picked" and "random" without a pick.
    """
    if name in ("none", "all"):
        return list(range(layers)) if name == "all" else []
    if name in ("picked", "random"):
        if picked is None:
            raise ValueError(f"the layer is to be {name!r}, but none was picked; give its index, or choose one first")
        return [picked if name == "picked" else another_layer(layers, picked, seed)]
    if not name.isdecimal() or int(name) >= layers:
        raise ValueError(f"layers {name!r} of {layers}: give picked, random, all, none or an index up to {layers - 1}")
    return [int(name)]


def swept(asked: str | Sequence[int], layers: int) -> list[int]:
    """The blocks of a sweep: those of the "middle" third, "all", or the ones listed.

    Raises ValueError for a block that the model has not.
    """
    if isinstance(asked, str):
        return list({"middle": middle_third(layers), "all": range(layers)}[asked])
    if missing := sorted(set(asked) - set(range(layers))):
        raise ValueError(f"a sweep asks for block {missing[0]} of {layers}; give indices up to {layers - 1}")
    return sorted(set(asked))
