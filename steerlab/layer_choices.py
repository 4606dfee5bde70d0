"""Choosing the one block that is adapted: by a rule, from figures that no test row has touched.

A choice has `candidates`, a row a block with its figures, and `picks`, the block that each rule names. The paper
(CogSteer) keeps to the middle third of the depth, where the reading curves are highest: see `middle_third`.
"""

import random
from collections.abc import Mapping
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
