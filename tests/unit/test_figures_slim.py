"""The figures of SLIM: tables, what they refuse, captions, and that plots show their table."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from steerlab.analyses import coverage as analysis
from steerlab.figures import captions, marks, slim_coverage, slim_kappa, slim_layers, style

CAPTIONS = Path(__file__).parents[2] / "captions"
KAPPAS = (0.5, 1.2815515655446008, 20.0)
LAYERS = 6


def choice(picks=((2, 1), (3, 0), (3, 1)), kappas=KAPPAS, first=0):
    """What SLIM's seeds selected; picks: (layer, place of kappa), a seed each; two layers from it on are tried."""
    selected = {}
    for seed, (layer, place) in enumerate(picks, start=first):
        tried = [(each, kappa) for each in (layer, layer + 1) for kappa in kappas]
        value = {each: 0.5 + seed / 100 - abs(tried.index(each) - place) / 50 for each in tried}
        candidates = [{"layer": each[0], "layers": [each[0]], "kappa": each[1], "value": value[each]} for each in tried]
        classifiers = [
            {"layer": at, "risk": 0.4 + at / 20 + seed / 50, "threshold": at, "fpr": 1 - at / 10, "fnr": at / 9}
            for at in range(LAYERS)
        ]
        selected[str(seed)] = {
            "by": "MC2 of the judging rows", "groups": 40 + seed, "pick": 1, "unsteered": 0.45 + seed / 100,
            "candidates": sorted(candidates, key=lambda one: -one["value"]), "classifiers": classifiers,
        }  # fmt: skip
    return {"model": "tiny", "method": "slim", "task": "truthfulness", "selected": selected}


def coverage(aims=(0.7, 0.9, 0.999), heads=3, silent=(), layers=1):
    """silent: (seed, head) that flag nothing in the test states, where a head "all" has none either."""
    table = []
    for seed, aimed in enumerate(aims):
        for layer in range(seed + 2, seed + 2 + layers):
            for part, share in (("test", 0.75), ("fitted", 0.85)):
                for head in [*map(str, range(heads)), "all"]:
                    value = share + seed / 100 + (0.02 * int(head) if head != "all" else 0.001)
                    shares = (value, value - 0.03, value + 0.03)
                    none = part == "test" and (seed, head) in silent
                    counts = (0, 0) if none else (1200, 30)
                    table.append((seed, layer, head, part, *((np.nan,) * 3 if none else shares), aimed, *counts))
    return pd.DataFrame(table, columns=analysis.COLUMNS)


MODULES = {"slim_layers": slim_layers, "slim_kappa": slim_kappa, "slim_coverage": slim_coverage}
SEVERAL, ONE_SEED = (
    {
        "slim_layers": slim_layers.table([choice(picks)]),
        "slim_kappa": slim_kappa.table([choice(picks)]),
        "slim_coverage": slim_coverage.table(coverage(aims), model="tiny"),
    }
    for picks, aims in [(((2, 1), (3, 0), (3, 1)), (0.7, 0.9, 0.999)), (((2, 1),), (0.7,))]
)
of_all_tables = pytest.mark.parametrize(("name", "table"), [*SEVERAL.items(), *ONE_SEED.items()])


def svg(module, table, path):
    style.save(module.plot(table), path)
    return path.read_bytes()


def caption(name, table):
    text = captions.caption((CAPTIONS / f"{name}.rst").read_text(), {"sample_data": ""} | MODULES[name].facts(table))
    return " ".join(text.split())


def drawn(panel, **look):
    """The lines of a panel with these properties, as lists of points."""
    return [
        line.get_xydata().round(9).tolist()
        for line in panel.lines
        if all(getattr(line, f"get_{name}")() == value for name, value in look.items())
    ]


def points(table, *columns):
    return table[list(columns)].to_numpy(dtype=float).round(9).tolist()


def entries(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@of_all_tables
def test_the_same_table_gives_the_same_bytes_also_from_its_csv(name, table, tmp_path):
    module = MODULES[name]
    assert list(table.columns) == module.COLUMNS
    table.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert svg(module, table, tmp_path / "a.svg") == svg(module, read, tmp_path / "b.svg")
    assert module.facts(table) == module.facts(read)


@of_all_tables
def test_captions_know_all_their_words_and_have_no_template_left(name, table):
    assert all(isinstance(phrase, str) for phrase in MODULES[name].facts(table).values())
    text = caption(name, table)
    assert "tiny" in text and not set("{}") & set(text) and "nan" not in text


@of_all_tables
def test_axes_have_readable_labels(name, table):
    figure = MODULES[name].plot(table)
    for panel in figure.axes:
        sizes = [tick.get_fontsize() for tick in (*panel.get_xticklabels(), *panel.get_yticklabels())]
        assert min(sizes) >= 8 and (panel.get_xlabel() or panel.get_ylabel())
    assert figure.get_figwidth() == style.WIDTH


@pytest.mark.parametrize("name", ["slim_layers", "slim_kappa"])
def test_other_choices_than_that_of_slim_are_refused(name):
    hpr = {"model": "tiny", "method": "hpr", "task": "truthfulness", "selected": {"0": {"layers": [1]}}}
    for choices, methods in [([hpr], "hpr"), ([choice(), hpr], "slim', 'hpr"), ([choice(())], "slim"), ([], "")]:
        with pytest.raises(ValueError, match=rf"figure {name}: got choices of \['?{methods}'?\]; pass SLIM's alone"):
            MODULES[name].table(choices)


# ---- layers ----


def test_layers_stand_seed_by_seed_with_their_means_and_the_share_that_steers_them_last():
    one = choice(((2, 1), (3, 0), (3, 1)), first=9)
    table = slim_layers.table([one | {"selected": dict(reversed(one["selected"].items()))}])
    assert list(table.seed.unique()) == ["9", "10", "11", "all"]
    means = table[table.seed == "all"]
    assert list(means.layer) == list(range(LAYERS))
    assert_allclose(means.picked, [0, 0, 1 / 3, 2 / 3, 0, 0])
    assert_allclose(means.risk, 0.4 + means.layer / 20 + 10 / 50)
    assert points(table[table.picked == 1], "seed", "layer") == [[9, 2], [10, 3], [11, 3]]


def test_risks_are_thick_means_and_thin_seeds_and_the_vote_is_solid_and_dashed_below():
    table = SEVERAL["slim_layers"]
    above, below = slim_layers.plot(table).axes
    means = table[table.seed == "all"]
    assert points(means, "layer", "risk") in drawn(above, linewidth=1.6)
    assert drawn(above, linewidth=0.6) == [points(table[table.seed == seed], "layer", "risk") for seed in "012"]
    assert drawn(below, linestyle="-") == [points(means, "layer", "fpr")]
    assert drawn(below, linestyle="--") == [points(means, "layer", "fnr")]
    assert below.get_ylim()[0] == 0 and {line.get_color() for line in below.lines} == {marks.GREY}


def test_layers_are_filled_where_every_seed_steers_them_and_hollow_where_some_do():
    for picks, filled, hollow, said in [
        (((2, 1), (3, 0), (4, 1)), [], [2, 3, 4], ["steered by some"]),
        (((3, 0), (3, 0), (3, 0)), [3], [], ["steered by every seed"]),
        (((2, 1),), [2], [], ["steered"]),
    ]:
        figure = slim_layers.plot(slim_layers.table([choice(picks)]))
        for layers, face in [(filled, style.colour("slim")), (hollow, "white")]:
            found = drawn(figure.axes[0], marker="o", markerfacecolor=face)
            assert [point[0] for line in found for point in line] == layers
        assert [entry for entry in entries(figure) if entry.startswith("steered")] == said


def test_one_seed_has_no_mean_to_speak_of():
    figure = slim_layers.plot(ONE_SEED["slim_layers"])
    assert not drawn(figure.axes[0], linewidth=0.6) and not any("seed" in entry for entry in entries(figure))
    assert "means over" not in caption("slim_layers", ONE_SEED["slim_layers"])


def test_the_caption_of_the_layers_tells_the_votes_of_the_steered_and_how_many_are_always_open():
    text = caption("slim_layers", slim_layers.table([choice(((1, 0), (3, 0)))]))
    assert "layer 1 from 1 vote on in seed 0 (alarms 0.90, misses 0.11); layer 3 from 3 votes on in seed 1" in text
    assert "this holds for 2 of 12 votes" in text
    table = slim_layers.table([choice()])
    assert "always open" not in caption("slim_layers", table.assign(threshold=table.threshold + 1))


# ---- kappa ----


def test_candidates_stand_by_seed_layer_and_kappa_with_the_unsteered_value_and_one_pick_a_seed():
    table = slim_kappa.table([choice(first=9)])
    assert points(table, "seed", "layer", "kappa") == sorted(points(table, "seed", "layer", "kappa"))
    assert list(table.seed.unique()) == [9, 10, 11] and len(table) == 3 * 2 * len(KAPPAS)
    assert_allclose(points(table[table.picked], "layer", "kappa"), [(2, KAPPAS[1]), (3, 0.5), (3, KAPPAS[1])])
    assert_allclose(table[table.picked].value - table[table.picked].unsteered, 0.05)


def test_a_seed_that_chose_by_least_risk_has_no_values_to_draw():
    one = choice()
    one["selected"]["1"] |= {"by": "least risk", "unsteered": None}
    with pytest.raises(ValueError, match="figure slim_kappa: seed 1 chose by least risk; fit it on rows with answers"):
        slim_kappa.table([one])


@pytest.mark.parametrize("kappas", [KAPPAS, (1.2815515655446008,)])
def test_a_panel_a_seed_has_its_layers_its_pick_ringed_and_its_unsteered_value_dashed(kappas):
    table = slim_kappa.table([choice(((2, 0), (3, 0), (5, 0)), kappas)])
    panels = slim_kappa.plot(table).axes
    for panel, (_, rows) in zip(panels, table.groupby("seed"), strict=True):
        level = round(rows.unsteered.iloc[0], 9)
        tried = [points(of_layer, "kappa", "value") for _, of_layer in rows.groupby("layer")]
        assert drawn(panel, linestyle="-") == tried and len(tried) == 2
        assert drawn(panel, markerfacecolor="none", marker="o") == [points(rows[rows.picked], "kappa", "value")]
        assert drawn(panel, linestyle="--") == [[[0, level], [1, level]]]
        low, high = panel.get_ylim()
        assert low < rows[["value", "unsteered"]].min().min() and rows.value.max() < high
        assert panel.get_xlim()[0] < min(kappas) and np.prod(panel.get_xlim()) == pytest.approx(
            min(kappas) * max(kappas)
        )
        assert panel.get_xscale() == "log" and list(panel.get_xticks()) == list(kappas)
    assert [tick.get_text() for tick in panels[-1].get_xticklabels()] == [f"{kappa:.3g}" for kappa in kappas]


def test_a_layer_looks_alike_in_all_panels_and_unlike_the_others():
    figure = slim_kappa.plot(slim_kappa.table([choice(tuple((layer, 0) for layer in (0, 1, 4, 7)))]))
    looks = {}
    for panel, layers in zip(figure.axes, [(0, 1), (1, 2), (4, 5), (7, 8)], strict=True):
        lines = [line for line in panel.lines if line.get_linestyle() == "-"]
        assert len({line.get_marker() for line in lines}) == len(lines)
        for layer, line in zip(layers, lines, strict=True):
            look = (mpl.colors.to_hex(line.get_color()), line.get_marker())
            assert looks.setdefault(layer, look) == look
    assert len(set(looks.values())) == len(looks) == 7
    assert entries(figure) == [f"layer {layer}" for layer in sorted(looks)] + ["unsteered", "picked"]


def test_the_caption_of_kappa_tells_each_pick_with_its_gain():
    table = SEVERAL["slim_kappa"]
    text = caption("slim_kappa", table)
    assert "layer 2, kappa 1.28 in seed 0 (+0.050); layer 3, kappa 0.5 in seed 1 (+0.050)" in text
    assert "MC2 of the judging rows, 40 to 42 questions" in text and "3 seeds, a panel each" in text
    assert "panel" not in caption("slim_kappa", ONE_SEED["slim_kappa"])
    assert "(−0.100)" in caption("slim_kappa", table.assign(unsteered=table.value + 0.1))


# ---- coverage ----


def test_coverage_stands_by_seed_and_part_with_all_heads_last():
    table = slim_coverage.table(coverage(aims=[0.9] * 11, heads=11).iloc[::-1])
    assert list(table.seed.unique()) == [str(seed) for seed in range(11)]
    assert list(table["head"][:12]) == [*map(str, range(11)), "all"]
    assert list(table.part[:24]) == ["fitted"] * 12 + ["test"] * 12


def test_coverage_without_a_part_or_with_a_head_twice_is_refused():
    whole = coverage()
    with pytest.raises(ValueError, match=r"figure slim_coverage: no \['test'\] states of seed 1; measure"):
        slim_coverage.table(whole[~((whole.seed == 1) & (whole.part == "test"))])
    with pytest.raises(ValueError, match="figure slim_coverage: a seed's head stands twice"):
        slim_coverage.table(pd.concat([whole, whole]))


def test_shares_intervals_heads_and_each_seeds_own_aim_are_drawn():
    table = slim_coverage.table(coverage())
    figure = slim_coverage.plot(table)
    (panel,) = figure.axes
    rows, pooled = panel.get_yticks(), table[table["head"] == "all"]
    large = [line[0] for line in drawn(panel, markersize=style.POOLED_SIZE, marker="o")]
    assert_allclose(large, np.column_stack([pooled.wished, rows]))
    small = [sorted(x for x, _ in line) for line in drawn(panel, markersize=style.SEED_SIZE)]
    heads = table[table["head"] != "all"]
    assert_allclose(small, [sorted(part.wished) for _, part in heads.groupby(["seed", "part"])])
    spans = [path.vertices for lines in panel.collections for path in lines.get_paths()]
    assert_allclose([span[:, 0] for span in spans if span[0, 1] == span[1, 1]], pooled[["low", "high"]])
    aims = [span for span in spans if span[0, 0] == span[1, 0]]
    assert [span[0, 0] for span in aims] == [0.7, 0.9, 0.999]
    for span, (fitted, test) in zip(aims, rows.reshape(3, 2), strict=True):
        assert span[0, 1] < fitted < test < span[1, 1]  # through the seed's own rows, and no other's
        assert sum((span[0, 1] < row) & (row < span[1, 1]) for row in rows) == 2
    assert entries(figure) == ["all heads, with interval", "one head", "aimed at"]


@pytest.mark.parametrize("aimed", [0.52, 0.999])
def test_the_axis_of_shares_ends_at_one_and_has_room_for_all_marks(aimed):
    table = slim_coverage.table(coverage((aimed,)))
    low, high = slim_coverage.plot(table).axes[0].get_xlim()
    marked = table[["wished", "low", "aimed"]].min().min()
    assert marked - 0.13 < low < marked and 1 < high < 1.05


def test_rows_are_the_parts_under_their_layer_and_with_several_seeds_the_seed():
    for how, headings in [
        ({}, ["layer 2, seed 0", "layer 3, seed 1", "layer 4, seed 2"]),
        ({"aims": (0.7,), "layers": 2}, ["layer 2", "layer 3"]),
    ]:
        (panel,) = slim_coverage.plot(slim_coverage.table(coverage(**how))).axes
        assert [tick.get_text() for tick in panel.get_yticklabels()] == ["fitted states", "test states"] * len(headings)
        assert [text.get_text() for text in panel.texts] == headings


def test_a_head_that_flags_nothing_has_no_point_and_the_caption_counts_it():
    table = slim_coverage.table(coverage(silent=[(0, "1")]), model="tiny")
    (panel,) = slim_coverage.plot(table).axes
    shown = [x for line in drawn(panel, markersize=style.SEED_SIZE) for x, _ in line]
    assert np.isfinite(shown).sum() == 3 * 2 * 3 - 1 and np.isfinite(panel.get_xlim()).all()
    assert "Of the heads' points 1 of 18 are missing" in caption("slim_coverage", table)
    assert "missing" not in caption("slim_coverage", SEVERAL["slim_coverage"])


def test_the_caption_of_coverage_gives_each_share_and_says_where_nothing_is_flagged():
    silent = [(1, head) for head in ("0", "1", "2", "all")]
    text = caption("slim_coverage", slim_coverage.table(coverage((0.7, 1.0, 1 - 1e-9), silent=silent), model="tiny"))
    assert "Fitted: 0.851 [0.821, 0.881] of 1,200 at layer 2 in seed 0; 0.861" in text
    assert "none flagged at layer 3 in seed 1" in text and "nan" not in text
    assert "the probability (0.700 and 1.000)" in text and "interval over questions" in text
    one = slim_coverage.table(coverage().assign(low=np.nan, high=np.nan), model="tiny")
    assert "Fitted: 0.851 of 1,200" in caption("slim_coverage", one)
