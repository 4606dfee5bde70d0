"""The rules by which one block is picked."""

import pandas as pd
import pytest

from steerlab import layer_choices


@pytest.mark.parametrize(("layers", "middle"), [(1, [0]), (2, [0, 1]), (3, [1]), (12, [4, 5, 6, 7])])
def test_the_middle_third_lies_in_the_middle(layers: int, middle: list[int]) -> None:
    assert list(layer_choices.middle_third(layers)) == middle


@pytest.mark.parametrize("layers", range(1, 40))
def test_the_buckets_are_every_block_once(layers: int) -> None:
    assert [block for bucket in layer_choices.buckets(layers).values() for block in bucket] == list(range(layers))


def test_validation_picks_the_best_of_the_middle_third_and_the_best_of_all() -> None:
    choice = layer_choices.by_validation({0: 0.9, 4: 0.5, 5: 0.6, 7: 0.6, 11: 0.1}, 12)
    assert choice["picks"] == {"validation_middle": 5, "validation": 0}
    assert layer_choices.picked_layer(choice, "validation_middle") == 5


def test_a_rule_that_the_choice_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'middle_peak' is none of this choice's: validation, validation_middle"):
        layer_choices.picked_layer(layer_choices.by_validation({1: 0.0}, 3), "middle_peak")


def test_validation_without_a_block_of_the_middle_third_is_refused() -> None:
    with pytest.raises(ValueError, match="no block of the middle third"):
        layer_choices.by_validation({0: 1.0, 11: 0.5}, 12)


def test_another_layer_is_any_but_the_picked_one_and_the_seeds_own() -> None:
    drawn = [layer_choices.another_layer(4, 2, seed) for seed in range(40)]
    assert set(drawn) == {0, 1, 3}
    assert drawn == [layer_choices.another_layer(4, 2, seed) for seed in range(40)]
    with pytest.raises(ValueError, match="no other"):
        layer_choices.another_layer(1, 0, 0)


def test_a_name_stands_for_its_blocks() -> None:
    picked = layer_choices.picked_layer(layer_choices.by_validation({2: 0.5, 3: 0.9}, 6), "validation")
    found = {name: layer_choices.named(name, 6, picked) for name in ("none", "all", "picked", "4")}
    assert found == {"none": [], "all": [0, 1, 2, 3, 4, 5], "picked": [3], "4": [4]}
    assert layer_choices.named("random", 6, picked, seed=7) == [layer_choices.another_layer(6, 3, 7)]
    with pytest.raises(ValueError, match="layers '6' of 6: give picked, random, all, none or an index up to 5"):
        layer_choices.named("6", 6)
    with pytest.raises(ValueError, match="is to be 'picked', but none was picked"):
        layer_choices.named("picked", 6)


def test_a_sweep_has_the_middle_third_or_all_or_the_blocks_listed() -> None:
    assert layer_choices.swept("middle", 9) == [3, 4, 5] and layer_choices.swept("all", 3) == [0, 1, 2]
    assert layer_choices.swept([4, 1, 4], 6) == [1, 4]
    with pytest.raises(ValueError, match="asks for block 6 of 6"):
        layer_choices.swept([0, 6], 6)


def of_blocks(split: str = "dev", **toxicity: float) -> pd.DataFrame:
    """The metrics of variants, each of which adapts one block."""
    rows = [
        {
            "method": name,
            "split": split,
            "seed": seed,
            "prompts": "all",
            "strength": strength,
            "metric": "mean_toxicity",
        }
        | {"scorer": "lexicon", "value": value + (seed != "all") - strength / 100}
        for name, value in toxicity.items()
        for seed in ("all", "0")
        for strength in (0.0, 1.0)
    ]
    return pd.DataFrame(rows)


SWEEP = {"objective": "mean_toxicity", "scorer": "lexicon", "layers": {"early": 0, "low": 4, "high": 5}}


@pytest.mark.parametrize(("goal", "picks"), [("lower", (4, 0)), ("raise", (5, 5))])
def test_a_sweep_picks_the_block_that_moves_the_objective_furthest(goal: str, picks: tuple[int, int]) -> None:
    metrics = of_blocks(early=0.1, low=0.2, high=0.4)
    choice = layer_choices.by_sweep(metrics, goal=goal, model_layers=12, **SWEEP)  # pyright: ignore
    assert choice["picks"] == dict(zip(("validation_middle", "validation"), picks))
    assert choice["middle"] == [4, 8]
    assert [one["layer"] for one in choice["candidates"]] == [0, 4, 5]


def test_a_sweep_never_sees_a_test_prompt() -> None:
    metrics = of_blocks(split="test", early=0.1, low=0.2, high=0.4)
    with pytest.raises(ValueError, match="got metrics of split test; choose from dev metrics alone"):
        layer_choices.by_sweep(metrics, goal="lower", model_layers=12, **SWEEP)


def test_a_block_without_its_value_is_named() -> None:
    with pytest.raises(ValueError, match="high has 0 values of mean_toxicity by lexicon; give it one"):
        layer_choices.by_sweep(of_blocks(early=0.1, low=0.2), goal="lower", model_layers=12, **SWEEP)
