"""The page: what a reader must find on it, that it stands alone, and that nothing of its input becomes markup."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import docutils.core
import jinja2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.figures import style
from steerlab.report import cards, costs, numbers, page, tables

COSTS = pd.DataFrame(
    [
        ("models/tiny/config.json", "prepare_model", 3.0, 900.0, 2, "cpu", "2026-01-01T10:00:00", "", "a"),
        ("generations/0.parquet", "generate", 61.0, 1200.0, 2, "cpu", "2026-01-01T10:01:00", "", "b"),
        ("generations/1.parquet", "generate", 62.5, 1300.0, 2, "cpu", "2026-01-01T10:02:00", "", "b"),
    ],
    columns=costs.COLUMNS,
)
FILLED = Path(__file__).parents[2] / "captions" / "filled.rst"
CAPTION = "Made-up continuations by tiny, with a 95 % percentile bootstrap interval over prompts (n = {n} dev prompts)."
SCORERS = {"average_max_toxicity": "lexicon==1", "toxicity_refused": "lexicon==1", "perplexity": "tiny, unsteered"}
METRICS = [
    "model", "method", "task", "split", "prompts", "steps", "strength", "seed", "metric", "value", "low", "high",
    "base", "difference", "difference_low", "difference_high", "n", "samples", "scorer", "data",
]  # fmt: skip
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """A page as a flat list of elements; each knows its attributes and the text inside it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        element = SimpleNamespace(tag=tag, attributes=dict(attrs), text="", inside=[e.tag for e in self._open])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(SimpleNamespace(tag=tag, attributes=dict(attrs), text="", inside=[]))

    def handle_endtag(self, tag):
        assert self._open.pop().tag == tag

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, tag):
        return [element for element in self.elements if element.tag == tag]


def metrics(method="base", *, strengths=(0.0,), steps=(0,), splits=("dev", "test"), prompts=("all",), n=60, **changes):
    """Made-up metrics of one method: toxicity 0.3 + strength / 10, perplexity 14.3 + strength / 10."""
    rows = []
    settings = [(*setting, strength) for setting in itertools.product(splits, prompts, steps) for strength in strengths]
    for split, part, taken, strength in settings:
        for seed, (metric, scorer) in itertools.product(("0", "1", "2", "all"), SCORERS.items()):
            base = {"average_max_toxicity": 0.3, "perplexity": 14.3}.get(metric, 0.0)
            value = base + (strength / 10 if base else 0)
            change = [value - base + width if method != "base" else np.nan for width in (0, -0.05, 0.05)]
            rows.append(
                ("tiny", method, "toxicity", split, part, taken, strength, seed, metric)
                + (value, value * 0.9, value * 1.1, base, *change, n, 4, scorer, "real")
            )
    return pd.DataFrame(rows, columns=METRICS).assign(**changes)


def shown(tmp_path, table, name="toxicity", *, group="Results", n=60):
    """A figure of the name with this table beside it, as the page reads it."""
    with style.context():
        figure, (panel,) = style.panels(1, height=2)
        panel.plot([0, 1], [n, 1])
    style.save(figure, tmp_path / f"{name}.svg")
    table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / f"{name}.rst").write_text(CAPTION.format(n=n))
    return page.figure(tmp_path / f"{name}.svg", title=f"Figure {name}", group=group)


def built(*figures, **changes):
    arguments = {
        "costs": COSTS,
        "provenance": {"Versions": {"torch": "2.13.0"}},
        "config": "model: tiny",
        "cards": {"Data": [cards.Card("comments", {"Licence": "MIT", "What": "this project's"}, mark="sample data")]},
        "not_run": ["Perspective: no key."],
    }
    return page.build(figures, **(arguments | changes))


def below(text):
    """The names of all tables' rows, in the page's order."""
    heads = [element for element in text.all("th") if element.attributes.get("scope") == "row"]
    return [" ".join(head.text.split()) for head in heads]


def test_every_figure_stands_with_its_own_caption(tmp_path):
    text = Page(built(shown(tmp_path, metrics(), "a"), shown(tmp_path, metrics(), "b", n=24)))
    assert len(text.all("svg")) == len(text.all("figcaption")) == 2
    for caption, n in zip(text.all("figcaption"), (60, 24), strict=True):
        assert " ".join(caption.text.split()).startswith(CAPTION.format(n=n))


def test_every_number_of_a_table_stands_with_its_interval_and_n_under_its_scorer(tmp_path):
    text = Page(built(shown(tmp_path, metrics())))
    cells = [cell.text.split() for cell in text.all("td") if "tbody" in cell.inside][: 2 * 3]
    assert cells[0] == ["0.300", "[0.270,", "0.330]", "n", "=", "60"]
    assert all(cell[-3:] == ["n", "=", "60"] for cell in cells)
    scorers = [caption.text for caption in text.all("caption") if "Scorer" in caption.text]
    assert [scorer.split(". ")[0] for scorer in scorers] == ["Scorer: lexicon==1", "Scorer: tiny, unsteered"]


def test_sample_data_is_marked_in_its_rows_and_only_there(tmp_path):
    table = pd.concat([metrics(), metrics("lm_steer", strengths=(1.0,), data="sample")])
    text = Page(built(shown(tmp_path, table), cards={}))
    rows = [head for head in text.all("th") if head.attributes.get("scope") == "row" and "prompts" in head.text]
    assert {("LM-Steer" in row.text, "sample data" in row.text) for row in rows} == {(True, True), (False, False)}
    assert "sample data" not in built(shown(tmp_path, metrics()), cards={})


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path):
    text = Page(built(shown(tmp_path, metrics())))
    for element in text.elements:
        for key, value in element.attributes.items():
            if key in ("href", "src", "xlink:href", "action"):
                assert value.startswith(("#", "data:"))
            assert not key.startswith("on")
    assert not text.all("script") and not text.all("link")
    assert "@import" not in text.all("style")[0].text and "url(" not in text.all("style")[0].text


def test_ids_are_unique_and_every_reference_has_its_target(tmp_path):
    text = built(shown(tmp_path, metrics(), "a"), shown(tmp_path, metrics(), "b"))
    ids = [element.attributes["id"] for element in Page(text).elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-\w+="([^"]+)"', text)
    targets = {"".join(reference) for reference in references} - {"Contents"}
    assert targets and targets <= set(ids)


def test_text_of_the_input_stays_text(tmp_path):
    nasty = "<script>alert(1)</script>&\"'"
    table = metrics().assign(scorer=lambda frame: frame.scorer + nasty)
    figure = shown(tmp_path, table)
    figure = page.Figure(figure.name, nasty, figure.svg, figure.csv, figure.caption + nasty)
    changes = {
        "title": nasty, "config": nasty, "not_run": [nasty], "provenance": {nasty: {nasty: nasty}},
        "cards": {nasty: [cards.Card(nasty, {nasty: nasty}, mark=nasty, code=nasty)]},
        "sections": [page.Section(f"Section {nasty}", "``text``", table)], "costs": COSTS.assign(rule=nasty),
    }  # fmt: skip
    text = Page(built(figure, **changes))
    assert not text.all("script")
    assert [text.all("h1")[0].text, text.all("pre")[0].text, text.all("li")[-1].text] == [nasty] * 3


def test_a_caption_cannot_read_files_or_bring_markup(tmp_path):
    figure = shown(tmp_path, metrics())
    for directive in ("include:: /etc/hostname", "raw:: html\n\n   <b>bold</b>"):
        bad = page.Figure(figure.name, figure.title, figure.svg, figure.csv, f".. {directive}\n")
        with pytest.raises(Exception, match="disabled"):
            built(bad)


def test_the_table_behind_a_figure_can_be_saved_from_the_page(tmp_path):
    figure = shown(tmp_path, metrics())
    text = Page(built(figure))
    (link,) = [element for element in text.all("a") if "download" in element.attributes]
    assert link.attributes["download"] == f"{figure.name}.csv"
    behind = pd.read_csv(io.BytesIO(base64.b64decode(link.attributes["href"].partition(",")[2])), dtype={"seed": str})
    pd.testing.assert_frame_equal(behind, metrics())


def test_figures_stand_under_the_heading_of_their_group_in_order_and_in_the_contents(tmp_path):
    figures = [
        shown(tmp_path, metrics(), name, group=group) for name, group in (("a", "One"), ("b", "Two"), ("c", "One"))
    ]
    text = Page(built(*figures))
    headings = [each.text for each in text.elements if each.tag in ("h2", "h3") and "main" in each.inside]
    assert headings[:5] == ["One", "Figure a", "Figure c", "Two", "Figure b"]
    links = [link.text for link in text.all("a") if "nav" in link.inside]
    assert links[:5] == headings[:5]


def test_the_difference_from_the_unsteered_model_stands_with_its_interval_below_the_value(tmp_path):
    table = pd.concat([metrics(splits=("test",)), metrics("lm_steer", strengths=(-1.0,), splits=("test",))])
    cells = [" ".join(cell.text.split()) for cell in Page(built(shown(tmp_path, table))).all("td")]
    assert cells[0] == "0.300 [0.270, 0.330] n = 60"
    assert cells[2] == "0.200 [0.180, 0.220] change −0.100 [−0.150, −0.0500] n = 60"


def test_metrics_without_differences_have_no_word_of_them(tmp_path):
    table = metrics("lm_steer", strengths=(1.0,)).drop(
        columns=["base", "difference", "difference_low", "difference_high"]
    )
    text = built(shown(tmp_path, table))
    assert "0.400" in text and 'class="change"' not in text and "Change:" not in text


def test_rows_name_steps_models_and_classes_of_prompts_only_where_there_are_several(tmp_path):
    base, steered = metrics(splits=("test",)), metrics("lm_steer", strengths=(-1.0,), steps=(300,), splits=("test",))
    assert below(Page(built(shown(tmp_path, pd.concat([base, steered])))))[:2] == [
        "unsteered test prompts, 3 seeds, 4 samples",
        "LM-Steer, −1 test prompts, 3 seeds, 4 samples",
    ]
    longer = metrics("lm_steer", strengths=(-1.0,), steps=(1000,), splits=("test",))
    rows = below(Page(built(shown(tmp_path, pd.concat([base, steered, longer])))))
    assert [row.partition(" test")[0] for row in rows[:3]] == [
        "unsteered",
        "LM-Steer, −1, 300 steps",
        "LM-Steer, −1, 1,000 steps",
    ]
    classes = metrics(splits=("test",), prompts=("neutral", "positive"))
    assert [row.partition(" prompts")[0] for row in below(Page(built(shown(tmp_path, classes))))[:2]] == [
        "unsteered neutral test", "unsteered positive test",
    ]  # fmt: skip
    models = pd.concat([base, base.assign(model="other")])
    assert [row.partition(" test")[0] for row in below(Page(built(shown(tmp_path, models))))[:2]] == [
        "unsteered, other", "unsteered, tiny",
    ]  # fmt: skip


def plain(tmp_path, table):
    """(caption, head cells, rows of cells, foot) of the one plain table on a page."""
    text = Page(built(shown(tmp_path, table), cards={}, costs=COSTS.iloc[:0]))
    cells = [element for element in text.elements if element.tag in ("th", "td") and "section" in element.inside]
    rows = [cell.text for cell in cells if "tbody" in cell.inside]
    heads = [cell.text for cell in cells if "thead" in cell.inside][:-6]  # less those of the costs
    foot = [cell.text for cell in cells if "tfoot" in cell.inside]
    return text.all("caption")[0].text, heads, [rows[i : i + len(heads)] for i in range(0, len(rows), len(heads))], foot


def test_any_other_csv_is_a_plain_table_of_rounded_numbers(tmp_path):
    table = pd.DataFrame(
        {"token": ["null", "it's"], "log_odds": [1.23456, np.nan], "count": [12345, -2], "top": [True, False]}
    )
    caption, heads, rows, foot = plain(tmp_path, table)
    assert heads == ["token", "log odds", "count", "top"] and caption == "2 rows." and foot == []
    assert rows == [["null", "1.23", "12345", "yes"], ["it's", "–", "−2", "no"]]


def test_a_long_table_ends_after_forty_rows_and_says_how_many_more_there_are(tmp_path):
    table = pd.DataFrame({"row": range(1043), "x": np.linspace(0, 1, 1043)})
    _, _, rows, foot = plain(tmp_path, table)
    assert len(rows) == tables.MOST_ROWS == 40 and foot == ["and 1,003 more in the CSV"]


def test_what_is_the_same_in_every_row_is_said_once_and_what_is_never_there_not_at_all(tmp_path):
    table = pd.DataFrame({"row": ["a", "b"], "model": "tiny", "x": [0.1, 0.2], "nothing": np.nan, "data": "sample"})
    caption, heads, rows, _ = plain(tmp_path, table)
    assert heads == ["row", "x"] and rows == [["a", "0.100"], ["b", "0.200"]]
    assert caption == "In every row: model tiny; data sample. sample data"


def test_a_table_without_rows_is_no_fault(tmp_path):
    assert plain(tmp_path, pd.DataFrame({"a": [], "b": []}))[0] == "0 rows."


def test_rows_that_would_fall_into_one_cell_make_a_plain_table(tmp_path):
    grid = pd.concat([metrics().assign(sentiment=value) for value in (-1, 1)])
    text = built(shown(tmp_path, grid))
    assert '<table class="plain">' in text and "Scorer:" not in text


def test_a_plain_tables_text_stays_text(tmp_path):
    text = Page(built(shown(tmp_path, pd.DataFrame({"<b>": ["<script>"], "y": [1.0]}))))
    assert not text.all("script") and not [element for element in text.all("b") if not element.attributes]


def test_wide_tables_scroll_by_themselves_and_by_keyboard_under_a_name(tmp_path):
    text = Page(built(shown(tmp_path, pd.DataFrame({f"column_{i}": [i, i + 1] for i in range(30)}))))
    regions = [element.attributes for element in text.all("div") if element.attributes.get("class") == "wide"]
    assert regions and all(region["tabindex"] == "0" and region["aria-labelledby"] for region in regions)
    assert ".wide { overflow-x: auto" in text.all("style")[0].text


def test_costs_are_added_up_by_rule(tmp_path):
    table = costs.by_rule(COSTS)
    assert table.to_dict("records")[1] == {
        "rule": "generate", "jobs": 2, "seconds": 123.5, "peak_mib": 1300.0, "threads": 2, "device": "cpu",
    }  # fmt: skip
    assert "124" in built(shown(tmp_path, metrics()))


def test_what_was_not_run_is_said(tmp_path):
    assert "Perspective: no key." in built(shown(tmp_path, metrics()))
    assert "Nothing that the configuration asks for was left out." in built(shown(tmp_path, metrics()), not_run=[])


def test_a_run_without_sidecars_still_has_a_page(tmp_path):
    Page(built(shown(tmp_path, metrics()), costs=costs.collect(tmp_path)))


def test_sidecars_are_collected_in_the_order_of_their_start(tmp_path):
    for name, started, device in (
        ("b/late.csv", "2026-01-01T10:01:00", "cuda"),
        ("c/early.csv", "2026-01-01T10:00:00", "cpu"),
    ):
        sidecar = {
            "rule": "r",
            "seconds": 1.5,
            "peak_mib": 100.0,
            "threads": 2,
            "device": device,
            "ended": "",
            "code": "x",
        }
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.run.json").write_text(json.dumps(sidecar | {"started": started, "host": "ignored"}))
    table = costs.collect(tmp_path)
    assert list(table.columns) == costs.COLUMNS
    assert list(table.output) == ["c/early.csv", "b/late.csv"]
    assert list(table.device) == ["cpu", "cuda"]


@pytest.mark.parametrize("text", ["{", '{"rule": "r"}', "[]"])
def test_a_damaged_sidecar_is_named(tmp_path, text):
    (tmp_path / "x.csv.run.json").write_text(text)
    with pytest.raises(ValueError, match=r"sidecar .*x\.csv\.run\.json is damaged .* run again"):
        costs.collect(tmp_path)


def test_two_figures_of_one_name_are_refused(tmp_path):
    figure = shown(tmp_path, metrics())
    with pytest.raises(ValueError, match="share a name"):
        built(figure, figure)


def test_a_caption_reads_the_same_in_snakemakes_report(tmp_path):
    # Snakemake renders the rule's caption with Jinja2 and then docutils; the page reads the file that it includes.
    figure = shown(tmp_path, metrics())
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(FILLED.read_text())
    snakemake = SimpleNamespace(output=SimpleNamespace(caption=tmp_path / "toxicity.rst"))
    theirs, ours = (
        docutils.core.publish_parts(text, writer="html5")["fragment"]
        for text in (template.render(snakemake=snakemake), figure.caption)
    )
    assert theirs == ours


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0512, "0.0512"), (0.25, "0.250"), (9.996, "10.0"), (12.34, "12.3"), (1234.0, "1230"), (0, "0")]
    + [(-0.5, "−0.500"), (np.nan, "–"), (np.inf, "∞")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert numbers.digits(value) == text


@given(st.floats(1e-6, 1e9) | st.floats(-1e9, -1e-6))
def test_a_shown_number_is_within_half_a_unit_of_its_third_digit(value):
    assert float(numbers.digits(value).replace("−", "-")) == pytest.approx(value, rel=0.00501)


def test_a_difference_bears_its_sign_and_says_so_where_it_has_no_interval():
    assert numbers.change(0.12, -0.03, 0.27) == ("+0.120", "[−0.0300, +0.270]")
    assert numbers.change(-2.0, np.nan, np.nan) == ("−2.00", "[no interval]")


def test_a_number_without_an_interval_says_so():
    assert numbers.estimate(0.5, np.nan, np.nan) == ("0.500", "[no interval]")
    assert numbers.estimate(np.nan, np.nan, np.nan) == ("–", "")
