"""Choosing the one block that is adapted: by a rule, from figures that no test row has touched.

A choice has `candidates`, a row a block with its figures, and `picks`, the block that each rule names. The paper
(CogSteer) keeps to the middle third of the depth, where the reading curves are highest: see `middle_third`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any


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


def named(
    name: str, layers: int, choice: Mapping[str, Any] | None = None, *, rule: str = "", seed: int = 0
) -> list[int]:
    """The blocks that a name stands for: "none", "all", "picked" (of the choice, by the rule), "random" (any but the
    picked one, drawn by the seed), or the index of one.

    Raises ValueError for another name, a block that the model has not, or a pick without a choice.
    """
    if name in ("none", "all"):
        return list(range(layers)) if name == "all" else []
    if name in ("picked", "random"):
        if choice is None:
            raise ValueError(f"layers {name!r} are to come from a choice, but none was made; choose a layer first")
        picked = picked_layer(choice, rule)
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
