"""The figure of GLUE: its table, what it refuses, its caption, and that plots show their table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab.figures import captions, glue, style
from steerlab.measure import COLUMNS as COST_COLUMNS
from steerlab.metrics import glue as metrics

CAPTION = (Path(__file__).parents[2] / "captions/glue.rst").read_text()
LAYERS = (("head", "none", None), ("bottleneck", "picked", 3), ("bottleneck", "random", 1), ("bottleneck", "all", None))
COSTS = pd.DataFrame(
    [
        ("head", "none", 0, 10, 0.4, 0.3, 0.5, 900.0, 1000.0),
        ("bottleneck", "picked", 500, 10, 0.8, 0.7, 0.9, 900.0, 1500.0),
        ("bottleneck", "all", 4000, 10, 1.6, 1.5, 1.9, 900.0, 3000.0),
    ],
    columns=COST_COLUMNS,
)


def compared(task: str = "sst2", metric: str = "accuracy", seeds: tuple = (0, 1), swept: tuple = (2, 3, 4)):
    """A comparison of a model of eight blocks."""
    labels, parts = np.arange(60) % 2.0, []

    def add(split: str, intervention: str, layers: str, layer: int | None, seed: int) -> None:
        right = np.random.default_rng([seed, layer or 0, len(layers)]).random(60) < 0.8
        about = {"model": "tiny", "task": task, "split": split, "intervention": intervention, "layers": layers}
        rows = {"seed": seed, "id": [str(n) for n in range(60)], "label": labels, "parameters": 500, "blocks": 8}
        guesses = np.where(right, labels, 1 - labels)
        frame = pd.DataFrame(about | rows).assign(prediction=guesses, layer=pd.array([layer] * 60, dtype="Int64"))
        parts.append(frame)

    for layer in swept:
        add("dev", "bottleneck", "swept", layer, 0)
    for seed in seeds:
        for intervention, layers, layer in LAYERS:
            add("test", intervention, layers, layer, seed)
    return metrics.table(pd.concat(parts), metric, resamples=50, confidence=0.95)


TABLES = {
    "measured": glue.table(compared(), costs=COSTS, model="tiny"),
    "one seed": glue.table(compared(seeds=(0,)), model="tiny"),
    "two tasks": glue.table(pd.concat([compared(), compared("cola", "matthews")]), costs=COSTS, model="tiny"),
    "by reading": glue.table(compared(swept=()), model="tiny", rule="middle_peak"),
}
of_all_tables = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def caption(table: pd.DataFrame) -> str:
    return " ".join(captions.caption(CAPTION, {"sample_data": ""} | glue.facts(table)).split())


@of_all_tables
@pytest.mark.filterwarnings("error")
def test_the_same_table_gives_the_same_bytes_also_from_its_csv(table: pd.DataFrame, tmp_path: Path):
    assert list(table.columns) == [*glue.COLUMNS, "rule"]
    table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    for name, each in (("a", table), ("b", read)):
        style.save(glue.plot(each), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert glue.facts(table) == glue.facts(read)


@of_all_tables
def test_captions_know_all_their_words_and_have_no_template_left(table: pd.DataFrame):
    assert all(isinstance(phrase, str) for phrase in glue.facts(table).values())
    text = caption(table)
    assert "tiny" in text and not set("{}<>") & set(text) and "nan" not in text.lower()


@of_all_tables
def test_axes_have_readable_labels(table: pd.DataFrame):
    figure = glue.plot(table)
    for panel in (panel for panel in figure.axes if panel.get_visible()):
        sizes = [tick.get_fontsize() for tick in (*panel.get_xticklabels(), *panel.get_yticklabels())]
        assert min(sizes, default=8) >= 8 and (panel.get_xlabel() or panel.get_ylabel())
    assert figure.get_figwidth() == style.WIDTH


def test_the_sweep_shades_the_middle_third_and_rings_the_pick():
    table = TABLES["measured"]
    panel = glue.plot(table).axes[0]
    swept = table[table.split == "dev"]
    lines = [line.get_xydata().tolist() for line in panel.lines]
    assert swept[["layer", "value"]].to_numpy(dtype=float).tolist() in lines
    (ring,) = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
    picked = swept[swept.layer == 3]
    assert ring.get_xydata().tolist() == picked[["layer", "value"]].to_numpy(dtype=float).tolist()
    (band,) = panel.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (1.5, 5.5)  # pyright: ignore


def test_the_caption_tells_the_pick_its_gains_and_its_share_of_the_cost():
    table = TABLES["measured"]
    text = caption(table)
    assert "SST-2, bottleneck: block 3 of 8 (from 0)" in text and "2 seeds on 60 test rows" in text
    gain = table[(table.against == "all")].iloc[0]
    assert f"SST-2, bottleneck against all layers {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" in text
    assert "has 12.5 % of the parameters" in text and "50.0 % of the seconds" in text
    assert "Training, measured" not in caption(TABLES["one seed"])
    assert "goes best with reading times" in caption(TABLES["by reading"])


def test_tables_that_would_mix_are_refused():
    with pytest.raises(ValueError, match="a classifier stands twice"):
        glue.table(pd.concat([compared(), compared()]))
    with pytest.raises(ValueError, match="task sst2 has no test rows"):
        glue.table(compared().query("split == 'dev'"))
