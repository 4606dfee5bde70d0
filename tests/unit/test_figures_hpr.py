"""The figures of HPR and of truthfulness: tables, what they refuse, captions, and that plots show their table."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from steerlab.figures import ablations, captions, norm_consistency, probe_accuracy, style, truthfulness
from steerlab.metrics.continuations import COLUMNS

CAPTIONS = Path(__file__).parents[2] / "captions"
BASE = {"mc1": 0.3, "mc2": 0.45, "bleu_better": 0.4, "rouge1_better": 0.42, "truthful": 0.5}
SCORERS = {"mc": "log-likelihood", "bl": "bleu==1", "ro": "rouge==1", "tr": "judge==1"}


def rows(
    method, strength=0.0, change=0.0, *, names=("mc1", "mc2"), seeds=2, half=0.02, n=60, own=0.0, steps=0, **other
):
    """A method's numbers: `change` from the unsteered model, whose value on these questions is `own` more."""
    table = []
    for metric in names:
        base = BASE[metric] + own
        beside = (np.nan,) * 4 if method == "base" else (base, change, change - half, change + half)
        for seed in ["all", *map(str, range(seeds))]:
            value = base + change + (0.001 * int(seed) if seed != "all" else 0)
            cell = ("tiny", method, "truthfulness", "test", "all", steps, strength, seed, metric)
            numbers = (value, value - 0.05, value + 0.05, *beside, n, 1, SCORERS[metric[:2]], "real")
            table.append(cell + numbers)
    return pd.DataFrame(table, columns=COLUMNS).assign(**other)


def choice(method, strength, steps=0):
    pick = {"steps": steps, "strength": strength}
    return {"model": "tiny", "method": method, "task": "truthfulness", "pick": pick}


def headline(**how):
    return pd.concat(
        [
            rows("random_hpr", 1.5, -0.01, **how),
            rows("hpr", 1.5, 0.06, **how),
            rows("hpr", 1.0, 0.03, **how),
            rows("hpr", 2.0, 0.01, **how),
            rows("base", **how),
            rows("lora", 1.0, 0.02, **how),
        ]
    )


def accuracies(seeds=2, layers=4, picks=((1, 2), (2, 3))):
    table = [
        (seed, layer, 0.6 + layer / 50 + seed / 100, 0.58 + layer / 50, 0.5, 0.7, 40, 900, layer in picks[seed])
        for seed in range(seeds)
        for layer in range(layers)
    ]
    return pd.DataFrame(table, columns=probe_accuracy.COLUMNS[1:])


def norms(**sizes):
    """Norms of methods at two layers; sizes: by how much a method's edit changes the norm, None for no edits."""
    table = []
    for method, size in sizes.items():
        places = [("stream", "block_output", layer, 0.01) for layer in range(2)]
        places += [("edit", "block_output", 1, size)] if size is not None else []
        for kind, site, layer, change in places:
            ratio = 1 + change
            ends = (ratio - 0.001, ratio + 0.001)
            shares = (abs(change), 1.0, 0.3)
            table.append((kind, method, 0, 1.0, site, layer, 5 * ratio, 5.0, ratio, *ends, *shares, 16, 144))
    return pd.DataFrame(table, columns=norm_consistency.COLUMNS[1:-1])


VARIANTS = [("hpr_net", "angle net"), ("hpr_reflection", "reflection")]
DRAWN = {
    "truthfulness": (truthfulness, lambda: truthfulness.table(headline(names=BASE), [choice("hpr", 1.5)])),
    "probe_accuracy": (probe_accuracy, lambda: probe_accuracy.table(accuracies(), model="tiny")),
    "norm_consistency": (
        norm_consistency,
        lambda: norm_consistency.table(norms(caa=0.2, hpr=0.0, random_hpr=0.0, lora=None), model="tiny"),
    ),
    "ablations": (
        ablations,
        lambda: ablations.table(
            pd.concat([rows("hpr_net", 1.0, 0.03), rows("hpr_reflection", 1.0, -0.06)]), VARIANTS, of="hpr"
        ),
    ),
}


def svg(module, table, path):
    style.save(module.plot(table), path)
    return path.read_bytes()


def caption(name, table):
    text = captions.caption((CAPTIONS / f"{name}.rst").read_text(), {"sample_data": ""} | DRAWN[name][0].facts(table))
    return " ".join(text.split())


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_table_gives_the_same_bytes_also_from_its_csv(name, tmp_path):
    module, make = DRAWN[name]
    table = make()
    assert list(table.columns) == module.COLUMNS
    table.to_csv(tmp_path / "table.csv", index=False)
    assert svg(module, table, tmp_path / "a.svg") == svg(
        module, pd.read_csv(tmp_path / "table.csv"), tmp_path / "b.svg"
    )


@pytest.mark.parametrize("name", DRAWN)
def test_captions_know_all_their_words_and_have_no_template_left(name):
    module, make = DRAWN[name]
    assert all(isinstance(phrase, str) for phrase in module.facts(make()).values())
    text = caption(name, make())
    assert "tiny" in text and not set("{}") & set(text)


@pytest.mark.parametrize("name", DRAWN)
def test_axes_have_readable_labels(name):
    module, make = DRAWN[name]
    figure = module.plot(make())
    for panel in figure.axes:
        sizes = [tick.get_fontsize() for tick in (*panel.get_xticklabels(), *panel.get_yticklabels())]
        assert min(sizes) >= 8
    assert all(panel.get_xlabel() or panel.get_ylabel() for panel in figure.axes)
    assert figure.get_figwidth() == style.WIDTH


# ---- style ----


def test_a_random_control_has_a_paler_tint_of_its_methods_colour_a_name_and_the_place_after_it():
    for method in ("hpr", "iti", "caa", "lora"):
        steer, control = (mpl.colors.to_rgb(style.colour(name)) for name in (method, f"random_{method}"))
        assert all(tint > part or tint == part == 1 for part, tint in zip(steer, control))
        assert style.rank(f"random_{method}") == style.rank(method) + 1
        assert style.label(f"random_{method}") == f"random directions ({style.label(method)})"


def test_the_control_of_a_method_that_the_style_does_not_know_is_one_too():
    assert style.rank("random_new_method") == style.rank("new_method") > style.rank("random_lora")
    assert style.label("random_new_method") == "random new method"


# ---- truthfulness ----


def settings(table):
    return table[["method", "strength"]].drop_duplicates().to_numpy().tolist()


def test_a_method_stands_at_its_pick_and_at_strength_one_its_control_at_the_pick():
    metrics = pd.concat([headline(), rows("random_hpr", 1.0)])
    table = truthfulness.table(metrics, [choice("hpr", 1.5)])
    assert settings(table) == [["base", 0.0], ["hpr", 1.0], ["hpr", 1.5], ["random_hpr", 1.5], ["lora", 1.0]]
    assert settings(table[table.chosen]) == [["hpr", 1.5]]


def test_strength_one_of_other_training_steps_than_the_pick_is_left_out():
    metrics = pd.concat([rows("base"), rows("hpr", 1.0, steps=40), rows("hpr", 1.0, steps=80)])
    table = truthfulness.table(metrics, [choice("hpr", 1.0, steps=80)])
    assert set(table[table.method == "hpr"].steps) == {80}


def test_without_a_choice_every_setting_is_shown():
    table = truthfulness.table(headline(), [choice("iti", 1.0), choice("lora", 1.0) | {"pick": None}])
    assert [row for row in settings(table) if row[0] == "hpr"] == [["hpr", 1.0], ["hpr", 1.5], ["hpr", 2.0]]
    assert not table.chosen.any()


def test_dev_questions_and_other_metrics_are_not_drawn():
    metrics = headline()
    more = pd.concat([metrics, metrics.assign(split="dev"), metrics.assign(metric="dist_2")])
    pd.testing.assert_frame_equal(truthfulness.table(more), truthfulness.table(metrics))


def test_metrics_without_mc2_are_refused():
    with pytest.raises(ValueError, match=r"no pooled rows of \['mc2'\]"):
        truthfulness.table(headline(names=["mc1"]))


def panels(figure):
    return [panel.get_xlabel().partition("\n")[0] for panel in figure.axes]


def test_generated_and_judged_answers_have_panels_where_there_are_numbers():
    assert panels(truthfulness.plot(truthfulness.table(headline()))) == ["MC1", "MC2"]
    everything = truthfulness.plot(truthfulness.table(headline(names=BASE)))
    assert panels(everything) == ["MC1", "MC2", "BLEU", "ROUGE-1", "Truthful"]


def test_panels_of_generated_answers_have_rows_for_the_methods_that_answered_alone():
    metrics = pd.concat([headline(), rows("base", names=["bleu_better"]), rows("hpr", 1.0, 0.1, names=["bleu_better"])])
    figure = truthfulness.plot(truthfulness.table(metrics, [choice("hpr", 1.0)]))
    labels = [[tick.get_text() for tick in panel.get_yticklabels()] for panel in figure.axes]
    assert labels[0] == ["unsteered", "HPR, 1 (chosen)", "LoRA, 1"] and labels[2] == ["unsteered", "HPR, 1 (chosen)"]


def test_points_intervals_ticks_and_seeds_stand_at_the_values_of_the_table():
    table = truthfulness.table(pd.concat([rows("base"), rows("hpr", 1.0, 0.06, own=0.02)]))
    panel = truthfulness.plot(table).axes[0]
    hpr = table[(table.method == "hpr") & (table.metric == "mc1")].set_index("seed")
    points = {(line.get_marker(), round(float(x), 6)) for line in panel.lines for x in np.atleast_1d(line.get_xdata())}
    assert ("o", round(hpr.value["all"], 6)) in points and ("o", round(hpr.value["1"], 6)) in points
    assert ("|", round(hpr.base["all"], 6)) in points
    spans = {
        (collection.get_linewidth()[0], *np.round(path.vertices[:, 0], 6))
        for collection in panel.collections
        for path in collection.get_paths()
    }
    ends = hpr.loc["all"]
    assert (truthfulness._THIN, round(ends.low, 6), round(ends.high, 6)) in spans
    assert (
        truthfulness._THICK,
        round(ends.base + ends.difference_low, 6),
        round(ends.base + ends.difference_high, 6),
    ) in spans


def test_the_caption_of_truthfulness_speaks_of_questions():
    text = caption("truthfulness", truthfulness.table(headline(), [choice("hpr", 1.5)]))
    assert "interval over questions" in text and "(n = 60 test questions)" in text and "2 seeds" in text
    assert "prompt" not in text


def test_the_caption_says_what_the_chosen_rows_change_with_intervals():
    text = caption("truthfulness", truthfulness.table(headline(), [choice("hpr", 1.5)]))
    assert "HPR, 1.5: MC1 +0.060 [+0.040, +0.080], MC2 +0.060 [+0.040, +0.080]." in text
    assert "HPR, 1:" not in text


def test_the_smallest_detectable_difference_is_that_of_a_two_sided_paired_test_with_power_80_percent():
    # The interval is 0.04 wide: standard error 0.02 / 1.960; (1.960 + 0.842) * 0.0102 = 0.0286.
    assert truthfulness.facts(truthfulness.table(headline()))["detectable"] == "0.029 in MC1 and 0.029 in MC2"


def test_the_caption_counts_what_chance_alone_would_find():
    # Five steered rows, two measures; one in twenty of a 95 % interval.
    assert truthfulness.facts(truthfulness.table(headline()))["by_chance"] == "0.5 of 10"


def test_the_caption_names_who_compared_and_who_judged_and_how_many_were_answered():
    metrics = pd.concat([headline(), headline(names=["bleu_better", "rouge1_better", "truthful"], n=24)])
    text = caption("truthfulness", truthfulness.table(metrics))
    assert "BLEU by bleu==1; ROUGE-1 by rouge==1" in text and "Truthful by judge==1" in text
    assert "gives itself (n = 24 test questions)" in text and "(n = 60 test questions)" in text
    few = caption("truthfulness", truthfulness.table(headline()))
    assert "gives itself" not in few and "judge answers" not in few


def test_rows_on_fewer_questions_are_said_to_have_their_own_tick():
    metrics = pd.concat([rows("base", n=60), rows("hpr", 1.0, 0.1, own=0.03, n=20)])
    text = caption("truthfulness", truthfulness.table(metrics))
    assert "read them against their own tick" in text and "20 to 60 test questions" in text
    assert "own tick" not in caption("truthfulness", truthfulness.table(headline()))


# ---- probes ----


def test_the_probes_of_several_seeds_get_their_means_and_the_share_that_picked():
    table = probe_accuracy.table(accuracies())
    means = table[table.seed == "all"].set_index("layer")
    assert means.picked.to_dict() == {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.5}
    assert means.dev_accuracy[1] == pytest.approx(0.6 + 1 / 50 + 0.005)
    assert list(table.seed.unique()) == ["0", "1", "all"]


def test_probes_of_other_layers_or_a_seed_twice_are_refused():
    one = accuracies()
    with pytest.raises(ValueError, match="stands twice"):
        probe_accuracy.table(pd.concat([one, one]))
    with pytest.raises(ValueError, match="different layers"):
        probe_accuracy.table(one[~((one.seed == 1) & (one.layer == 0))])


def test_picked_layers_are_filled_where_every_seed_picked_them_and_hollow_where_some_did():
    table = probe_accuracy.table(accuracies())
    panel = probe_accuracy.plot(table).axes[0]
    faces = {
        float(x): line.get_markerfacecolor()
        for line in panel.lines
        if line.get_marker() == "o"
        for x in np.atleast_1d(line.get_xdata())
    }
    assert faces == {1.0: "white", 2.0: style.colour("hpr"), 3.0: "white"}


def test_lines_of_probes_are_test_dev_seeds_and_chance():
    table = probe_accuracy.table(accuracies())
    drawn = [list(map(float, np.atleast_1d(line.get_ydata()))) for line in probe_accuracy.plot(table).axes[0].lines]
    means = table[table.seed == "all"]
    assert [probe_accuracy.CHANCE] * 2 in drawn
    assert list(means.test_accuracy) in drawn and list(means.dev_accuracy) in drawn
    assert sum(line == list(table[table.seed == "0"].test_accuracy) for line in drawn) >= 2  # both seeds, alike here


def test_the_caption_of_the_probes_says_how_much_the_pick_flatters():
    text = caption("probe_accuracy", probe_accuracy.table(accuracies()))
    picked = accuracies().query("picked")
    assert "Picked are layers 2, 1 (1 of 2 seeds) and 3 (1 of 2 seeds)" in text
    assert f"{picked.dev_accuracy.mean():.3f} on dev questions, {picked.test_accuracy.mean():.3f} on test" in text
    assert "40 test questions (900 tokens)" in text and "2 seeds" in text
    assert "seeds" not in caption("probe_accuracy", probe_accuracy.table(accuracies(seeds=1)))


# ---- norms ----


def test_norms_are_refused_where_there_are_none_or_several_strengths():
    with pytest.raises(ValueError, match="no norms"):
        norm_consistency.table(norms())
    two = pd.concat([norms(caa=0.1), norms(caa=0.2).assign(strength=2.0)])
    with pytest.raises(ValueError, match="caa has several seeds or strengths"):
        norm_consistency.table(two)


def test_edits_are_points_above_and_the_stream_is_lines_below_with_one_drawn_through():
    table = norm_consistency.table(norms(caa=0.2, hpr=0.0))
    above, below = norm_consistency.plot(table).axes
    points = {
        float(y): line.get_marker() for line in above.lines if line.get_marker() != "None" for y in line.get_ydata()
    }
    assert points == {1.0: style.marker("hpr"), 1.2: style.marker("caa")}
    assert sum(len(line.get_ydata()) == 2 and line.get_linestyle() == "-" for line in below.lines) == 2
    for panel in (above, below):
        assert any(list(line.get_ydata()) == [1, 1] and line.get_linestyle() == ":" for line in panel.lines)


def test_controls_are_hollow_and_have_one_entry_in_the_legend():
    table = norm_consistency.table(norms(hpr=0.0, random_hpr=0.0, caa=0.2, random_caa=0.1))
    figure = norm_consistency.plot(table)
    marked = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert {line.get_marker() for line in marked if line.get_markerfacecolor() == "none"} == {"v", "*"}
    assert [line.get_marker() for line in marked].count("v") == 2  # a method and its control
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["HPR, 1", "CAA, 1", "random control"]


def test_ratios_that_differ_much_get_a_logarithmic_axis():
    small, large = (norm_consistency.table(norms(hpr=0.0, iti=size)) for size in (0.5, 9.0))
    assert norm_consistency.plot(small).axes[0].get_yscale() == "linear"
    assert norm_consistency.plot(large).axes[0].get_yscale() == "log"


def test_the_caption_of_norms_tells_who_keeps_them_who_does_not_and_who_edits_nothing():
    text = caption("norm_consistency", norm_consistency.table(norms(hpr=3e-8, caa=-0.25, lora=None)))
    assert "keeps the norm, to rounding, under HPR, 1 (3e-08 on average at the layer that changes it most)." in text
    assert "on average by: CAA, 1: 25 %." in text
    assert "No layer's states are edited by LoRA, 1." in text
    assert "144 tokens" in text and "16 dev prompts" in text and "random" not in text


# ---- ablations ----


def test_ablations_stand_in_the_order_of_their_labels_and_others_are_left_out():
    metrics = pd.concat([rows("hpr_reflection", 1.0), rows("hpr_net", 1.0), rows("caa", 1.0), rows("base")])
    table = ablations.table(metrics, VARIANTS, of="hpr")
    assert list(table.label.unique()) == ["angle net, 1", "reflection, 1"]


def test_ablations_are_drawn_as_differences_also_below_zero():
    table = DRAWN["ablations"][1]()
    panel = ablations.plot(table).axes[0]
    pooled = {float(x) for line in panel.lines if line.get_markersize() == style.POOLED_SIZE for x in line.get_xdata()}
    assert pooled == set(table[(table.metric == "mc1") & (table.seed == "all")].difference)
    low, high = panel.get_xlim()
    assert low < table.difference_low.min() and high > table.difference_high.max()
    assert any(list(line.get_xdata()) == [0, 0] for line in panel.lines)


def test_ablations_without_differences_or_variants_are_refused():
    with pytest.raises(ValueError, match="hpr_net has no difference"):
        ablations.table(rows("hpr_net", 1.0).assign(difference=np.nan), VARIANTS, of="hpr")
    with pytest.raises(ValueError, match="no pooled rows"):
        ablations.table(rows("caa", 1.0), VARIANTS, of="hpr")


def test_the_caption_of_the_ablations_lists_each_change():
    text = caption("ablations", DRAWN["ablations"][1]())
    assert text.startswith("Variants of HPR on tiny (angle net and reflection)") and "interval over questions" in text
    assert "reflection, 1: MC1 −0.060 [−0.080, −0.040], MC2 −0.060 [−0.080, −0.040]" in text


def test_the_ablations_of_another_method_have_its_name_and_colour():
    table = ablations.table(rows("slim_l2", 1.0, 0.03), [("slim_l2", "squared error")], of="slim")
    assert caption("ablations", table).startswith("Variants of SLIM on tiny (squared error)")
    points = [line for line in ablations.plot(table).axes[0].lines if line.get_markersize() == style.POOLED_SIZE]
    assert [line.get_color() for line in points] == [style.colour("slim")]
    with pytest.raises(ValueError, match="figure slim_ablations: no pooled rows"):
        ablations.table(rows("caa", 1.0), [("slim_l2", "squared error")], of="slim")
