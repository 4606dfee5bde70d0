"""CogSteer's figures of toxicity: the sweep over blocks and the placements, on examples worked out by hand."""

from pathlib import Path

import pandas as pd
import pytest

from steerlab.figures import layer_sweep, style, variants
from tests.unit.test_figures_lm_steer import caption, rows, texts

LAYERS = {"block_3": 3, "block_4": 4, "block_5": 5}
CHOICE = {"middle": [4, 6], "picks": {"validation_middle": 5, "validation": 3}}


def both(toxicity: float, perplexity: float, **other: object) -> pd.DataFrame:
    """Mean toxicity and perplexity of a method on dev prompts."""
    parts = [rows("mean_toxicity", toxicity, **other), rows("perplexity", perplexity, base=12.0, half=1.0, **other)]
    return pd.concat(parts).assign(split="dev", steps=0)


def swept() -> pd.DataFrame:
    blocks = zip(LAYERS, (0.2, 0.4, 0.3))
    steered = [both(toxicity, 13.0, method=name) for name, toxicity in blocks]
    return pd.concat([both(0.4, 12.0, method="base"), both(0.1, 30.0, method="caa"), *steered])


def test_blocks_stand_in_their_order_after_the_unsteered_model() -> None:
    table = layer_sweep.table(swept(), [CHOICE], LAYERS)
    pooled = table[(table.seed == "all") & (table.metric == "mean_toxicity")]
    assert pooled[["layer", "value"]].to_numpy().tolist() == [[-1, 0.4], [3, 0.2], [4, 0.4], [5, 0.3]]
    assert pooled.is_middle.tolist() == [False, False, True, True]
    assert pooled.is_picked.tolist() == [False, False, False, True]


def test_the_caption_tells_the_pick_and_that_another_block_was_better() -> None:
    said = caption(layer_sweep, layer_sweep.table(swept(), [CHOICE], LAYERS))
    assert "picks block 5 (ring); the least toxic of all is block\n3" in said.replace("is block 3", "is block\n3")
    assert "(3 blocks)" in said


@pytest.mark.parametrize("choices", [[], [CHOICE, CHOICE]], ids=len)
def test_the_sweep_needs_its_one_choice(choices: list) -> None:
    with pytest.raises(ValueError, match=f"got {len(choices)} choices"):
        layer_sweep.table(swept(), choices, LAYERS)


def test_a_sweep_without_the_unsteered_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows of method base"):
        layer_sweep.table(swept()[lambda table: table.method != "base"], [CHOICE], LAYERS)


def test_the_sweep_from_its_csv_has_the_same_bytes(tmp_path: Path) -> None:
    table = layer_sweep.table(swept(), [CHOICE], LAYERS)
    table.to_csv(tmp_path / "table.csv", index=False)
    for source, name in ((table, "a.svg"), (pd.read_csv(tmp_path / "table.csv"), "b.svg")):
        style.save(layer_sweep.plot(source), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_sweep_is_half_a_page_wide_and_its_axes_have_names() -> None:
    figure = layer_sweep.plot(layer_sweep.table(swept(), [CHOICE], LAYERS))
    assert figure.get_figwidth() == style.WIDTH
    assert [panel.get_ylabel() for panel in figure.axes] == list(layer_sweep.PANELS.values())
    assert figure.axes[-1].get_xlabel().startswith("Adapted block (")


def test_placements_are_drawn_in_their_methods_colour_with_both_signs() -> None:
    labels = [("cogsteer_picked", "the picked block"), ("cogsteer_all", "every block")]
    steered = [
        both(0.5, 14.0, method="cogsteer_picked", strength=-1.0),
        both(0.3, 13.0, method="cogsteer_picked"),
        both(0.2, 20.0, method="cogsteer_all"),
    ]
    metrics = pd.concat([both(0.4, 12.0, method="base"), *steered]).assign(split="test")
    table = variants.table(metrics, labels, of="cogsteer")
    rows = ["unsteered", "the picked block, −1", "the picked block, 1", "every block, 1"]
    assert list(table.label.drop_duplicates()) == rows
    figure = variants.plot(table)
    assert set(rows) <= set(texts(figure)) | {tick.get_text() for tick in figure.axes[0].get_yticklabels()}
    said = caption(variants, table)
    assert "Variants of CogSteer" in said and "every block, 1: −0.200 [−0.250, −0.150]" in " ".join(said.split())
