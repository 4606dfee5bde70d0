"""The figures of the comparison: tables, what they refuse, captions, and that plots show their table."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from steerlab.figures import captions, comparison, equal_kl, style
from steerlab.metrics.comparison import SETTING, compare
from tests.unit.test_metrics_comparison import BASE, divergence, effect, rows

CAPTIONS = Path(__file__).parents[2] / "captions"
CONTROLS = frozenset(["random_caa"])
IDS = [f"p{place:03d}" for place in range(8)]
# Per method: effects at strength 1 on eight prompts, and how far it is then.
TOXICITY = {
    "lm_steer": ([0.3, 0.4, 0.3, 0.5, 0.4, 0.3, 0.4, 0.5], 0.5),
    "caa": ([0.1, 0.2, 0.1, 0.1, 0.2, 0.1, 0.1, 0.2], 0.5),
    "random_caa": ([0.0, 0.1, -0.1, 0.0, 0.1, 0.0, -0.1, 0.1], 0.6),
    "cogsteer": ([0.2, -0.3, 0.1, -0.1, 0.2, -0.2, 0.1, 0.1], 0.4),
    "instructed": ([0.1, -0.1, 0.1, -0.1, 0.1, 0.0, 0.0, -0.1], 0.1),
}
TRUTHFULNESS = {
    "hpr": ([0.0, 0.1, -0.1, 0.2, 0.0, 0.1, -0.1, -0.2], 0.2),
    "caa": ([0.05, -0.05, 0.1, -0.1, 0.0, 0.1, -0.1, 0.0], 0.3),
}
METRICS = {"toxicity": ("mean_toxicity", "a classifier"), "truthfulness": ("mc2", "log-likelihood")}


def of_task(task: str, given: Mapping[str, tuple[Sequence[float], float]], *, ours=(), timed=True, **changes):
    """Both tables of a comparison with all prices, as the script writes them."""
    names = {method: (method, 0, 1.0) for method in given}
    perplexity = {BASE: [10.0] * 8} | {name: [11.0 + place] * 8 for place, name in enumerate(names.values())}
    asked = [(method, 1.0, f"q{place}", place % 2, 1.0) for method in given for place in range(4)]
    speed = pd.DataFrame({"method": list(given)}).assign(
        seconds_a_token=0.02, base_seconds_a_token=0.01, training_seconds=[np.nan, *range(10, len(given) + 9)]
    )
    found = compare(
        effect({names[method]: effects for method, (effects, _) in given.items()}),
        dict.fromkeys(given, (0, 1.0)),
        controls=CONTROLS,
        perplexity=rows(perplexity, ids=IDS),
        divergence=divergence({names[method]: [kl] * 8 for method, (_, kl) in given.items()}),
        questions=pd.DataFrame(asked, columns=["method", "strength", "question", "acc", "base_acc"]),
        speed=speed if timed else None,
        resamples=200,
    )
    metric, scorer = METRICS[task]
    labels = {"model": "tiny", "task": task, "metric": metric, "scorer": scorer, "judge": "tiny, unsteered"}
    labels |= {"data": "sample"} | changes
    compared, pairs = (table.assign(**labels) for table in found)
    return compared.assign(ours=compared.method.isin(ours)), pairs


def of_tasks(*parts):
    """The tables of several tasks in one, with those of another model, which is to be left out."""
    other = of_task("toxicity", TOXICITY, model="other")
    return [pd.concat([part[place] for part in (*parts, other)], ignore_index=True) for place in (0, 1)]


def tables(*parts) -> dict[str, pd.DataFrame]:
    compared, pairs = of_tasks(*parts)
    return {
        "comparison": comparison.table(compared, model="tiny"),
        "equal_kl": equal_kl.table(compared, pairs, model="tiny"),
    }


MODULES = {"comparison": comparison, "equal_kl": equal_kl}
BOTH = tables(of_task("truthfulness", TRUTHFULNESS), of_task("toxicity", TOXICITY, ours=["caa", "instructed"]))
PLAIN = tables(of_task("truthfulness", TRUTHFULNESS, timed=False))
of_all_tables = pytest.mark.parametrize(("name", "table"), [*BOTH.items(), *PLAIN.items()])


def svg(module, table: pd.DataFrame, path: Path) -> bytes:
    style.save(module.plot(table), path)
    return path.read_bytes()


def caption(name: str, table: pd.DataFrame, sample_data: str = "") -> str:
    text = captions.caption(
        (CAPTIONS / f"{name}.rst").read_text(), {"sample_data": sample_data} | MODULES[name].facts(table)
    )
    return " ".join(text.split())


# ---- both ----


@of_all_tables
def test_a_figure_is_drawn_from_its_csv_and_says_the_same(name, table, tmp_path):
    read = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    first, again = (svg(MODULES[name], each, tmp_path / f"{place}.svg") for place, each in enumerate([table, read]))
    assert first == again and caption(name, read) == caption(name, table)
    assert list(read.columns) == MODULES[name].COLUMNS


@of_all_tables
def test_captions_know_all_their_words_and_have_no_template_left(name, table):
    assert all(isinstance(phrase, str) for phrase in MODULES[name].facts(table).values())
    for sample_data in ("", "sample data"):
        text = caption(name, table, sample_data)
        assert not set("{}") & set(text) and "nan" not in text and ("rests on sample data" in text) is bool(sample_data)


@of_all_tables
def test_rows_stand_by_task_as_the_axes_do_with_controls_last(name, table):
    order = [*dict.fromkeys(table.metric)]
    assert order == [metric for metric in comparison.TASKS if metric in order]
    for _, of_one in table.groupby("task"):
        keys = [(control, style.rank(method)) for control, method in zip(of_one.control, of_one.method)]
        assert keys == sorted(keys) and of_one.method.is_unique


@of_all_tables
def test_axes_have_readable_labels(name, table):
    figure = MODULES[name].plot(table)
    for panel in figure.axes:
        sizes = [tick.get_fontsize() for tick in (*panel.get_xticklabels(), *panel.get_yticklabels())]
        assert all(size >= 8 for size in sizes)
    assert figure.get_figwidth() == style.WIDTH


def test_without_rows_of_the_model_figures_are_refused():
    compared, pairs = of_tasks()
    with pytest.raises(ValueError, match="^figure comparison: no methods of tiny were compared; compute"):
        comparison.table(compared, model="tiny")
    with pytest.raises(ValueError, match="^figure equal_kl: no KL divergence of tiny was measured; compute"):
        equal_kl.table(compared, pairs, model="tiny")


# ---- effects and prices ----


def marked(panel, *, hollow: bool = False) -> list[tuple[str, float, float]]:
    """(colour, x, y) of each method's mark in a panel; or of the hollow ones."""
    kinds = [line for line in panel.lines if line.get_marker() in style.MARKERS.values() and len(line.get_xdata()) == 1]
    return [
        (line.get_color().upper(), float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in kinds
        if (line.get_markerfacecolor() == "white") is hollow
    ]


def test_every_method_stands_once_in_each_panel_at_its_effect_and_price():
    table = BOTH["comparison"]
    axes = iter(comparison.plot(table).axes)
    for price in comparison.PRICES:
        for metric in dict.fromkeys(table.metric):
            shown = table[(table.metric == metric) & table[price.column].notna()]
            panel = next(axes)
            for control in (False, True):
                some = shown[shown.control == control]
                expected = [
                    (style.colour(method).upper(), x, price.sign * y)
                    for method, x, y in zip(some.method, some.effect, some[price.column])
                ]
                assert sorted(marked(panel, hollow=control)) == sorted(expected)
    assert next(axes, None) is None


def test_the_time_is_told_as_a_multiple_and_the_effect_with_its_interval():
    table = BOTH["comparison"]
    assert_allclose(table.time_ratio, 2.0)
    panel = comparison.plot(table).axes[0]
    ends = [tuple(segment[:, 0]) for lines in panel.collections for segment in lines.get_segments()]
    shown = table[table.metric == "mean_toxicity"]
    assert sorted(ends) == sorted(zip(shown.effect_low, shown.effect_high))


def points_of(given: Mapping[str, tuple[float, float]], **changes) -> pd.DataFrame:
    """A table of methods with these effects and divergences, and no other price."""
    table = PLAIN["comparison"].iloc[:1]
    parts = [
        table.assign(method=method, effect=x, effect_low=x - 0.1, effect_high=x + 0.1, kl=kl)
        for method, (x, kl) in given.items()
    ]
    none = {price.column: np.nan for price in comparison.PRICES if price.column != "kl"}
    return pd.concat(parts, ignore_index=True).assign(control=lambda rows: rows.method.isin(CONTROLS), **none | changes)


def front(table: pd.DataFrame) -> list[list[float]]:
    (panel,) = comparison.plot(table).axes
    (line,) = [line for line in panel.lines if line.get_color() == "#888888" and line.get_linewidth() == 0.9]
    return line.get_xydata().tolist()


def test_the_line_joins_the_unsteered_model_and_what_no_other_beats_in_both():
    of = {"lm_steer": (1.0, 1.0), "hpr": (2.0, 4.0), "caa": (0.5, 2.0), "cogsteer": (-1.0, 0.5), "iti": (2.0, 5.0)}
    assert front(points_of(of)) == [[0, 0], [1, 1], [2, 4]]
    assert front(points_of(of | {"random_caa": (9.0, 0.1)})) == [[0, 0], [1, 1], [2, 4]], "a control is no part of it"
    assert front(points_of({"cogsteer": (-1.0, 0.5)})) == [[0, 0]]


def test_a_price_that_nothing_was_measured_of_has_no_row():
    whole, plain = (comparison.plot(tables["comparison"]) for tables in (BOTH, PLAIN))
    assert (len(whole.axes), len(plain.axes)) == (5 * 2, 3)
    assert [panel.get_ylabel().split("\n")[0] for panel in plain.axes] == [
        "Perplexity", "KL divergence", "Accuracy lost",
    ]  # fmt: skip


def test_a_task_without_a_price_says_so_in_its_panel():
    table = BOTH["comparison"].copy()
    table.loc[table.task == "truthfulness", "kl"] = np.nan
    figure = comparison.plot(table)
    said = {place: [text.get_text() for text in panel.texts] for place, panel in enumerate(figure.axes)}
    assert {place: texts for place, texts in said.items() if texts} == {3: ["not measured"]}


def test_no_distance_at_all_can_be_drawn():
    assert front(points_of({"hpr": (0.0, 0.0)}))[0] == [0, 0]


def test_the_caption_tells_effects_controls_times_and_what_is_this_projects_own():
    text, plain = caption("comparison", BOTH["comparison"]), caption("comparison", PLAIN["comparison"])
    assert "Told from the unsteered model" in text and "No method is told" in plain
    assert "LM-Steer on toxicity +0.387 [" in text and "CogSteer on toxicity" not in text
    own = f"{style.label('instructed')} and {style.label('caa')}"
    assert f"this project's: toxicity: {own}." in text
    assert "toxicity: 8 prompts; truthfulness: 8 prompts; toxicity by a classifier; truthfulness by log" in text
    for said in ("Hollow marks", "time a token", "On these tasks no paper"):
        assert said in text and said not in plain


# ---- at one divergence ----


def test_a_row_is_a_method_that_reaches_the_divergence_and_the_others_are_named():
    table = BOTH["equal_kl"]
    toxicity = table[table.task == "toxicity"]
    assert toxicity.method.to_list() == [
        *sorted(["lm_steer", "caa", "cogsteer"], key=style.rank), "random_caa",
    ]  # fmt: skip
    assert set(toxicity.kl_level) == {0.4} and set(toxicity.beyond) == {style.label("instructed")}
    assert f"not reaching it: toxicity: {style.label('instructed')}." in caption("equal_kl", table)
    assert set(table[table.task == "truthfulness"].beyond) == {""}


def test_what_a_method_beats_is_what_it_is_told_from():
    toxicity = BOTH["equal_kl"].query("task == 'toxicity'").set_index("method")
    assert {*toxicity.beats["lm_steer"].split(", ")} == {style.label(name) for name in ("caa", "cogsteer", "base")}
    assert toxicity.beats["cogsteer"] == "" and toxicity.loc["random_caa", ["beats"]].item() == ""
    text = caption("equal_kl", BOTH["equal_kl"])
    assert f"on toxicity LM-Steer ({toxicity.value['lm_steer']:+.3g} [" in text and "told from no other" in text


def test_points_stand_at_the_values_of_the_table():
    table = BOTH["equal_kl"]
    panels = equal_kl.plot(table).axes
    assert len(panels) == 2
    for panel, metric in zip(panels, dict.fromkeys(table.metric)):
        values = sorted(table[table.metric == metric].value.round(9))
        drawn = {round(float(x), 9) for line in panel.lines for x in np.atleast_1d(line.get_xdata())}
        assert set(values) <= drawn


def test_where_controls_alone_reach_the_divergence_nothing_leads():
    table = BOTH["equal_kl"]
    alone = table[table.control]
    text = caption("equal_kl", alone)
    assert (
        "First in rank" not in text
        and "Pale rows" in text
        and "Pale rows" not in caption("equal_kl", PLAIN["equal_kl"])
    )


def test_the_names_of_a_setting_are_those_of_the_tables():
    compared, _ = of_tasks(of_task("toxicity", TOXICITY))
    assert {*SETTING, *comparison._NUMBERS, "ours", "judge"} <= set(compared.columns)
