"""The page: what a reader must find on it, that it stands alone, and that nothing of its input becomes markup."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import docutils.core
import jinja2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.figures import captions, style, toxicity
from steerlab.report import costs, numbers, page
from tests.unit.test_figures import TEMPLATE, metrics

COSTS = pd.DataFrame(
    [
        ("models/tiny/config.json", "prepare_model", 3.0, 900.0, 2, "cpu", "2026-01-01T10:00:00", "", "a"),
        ("generations/0.parquet", "generate", 61.0, 1200.0, 2, "cpu", "2026-01-01T10:01:00", "", "b"),
        ("generations/1.parquet", "generate", 62.5, 1300.0, 2, "cpu", "2026-01-01T10:02:00", "", "b"),
    ],
    columns=costs.COLUMNS,
)
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


def shown(tmp_path, table, name="toxicity"):
    style.save(toxicity.plot(table), tmp_path / f"{name}.svg")
    table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / f"{name}.rst").write_text(captions.caption(TEMPLATE.read_text(), table))
    return page.figure(tmp_path / f"{name}.svg", title=f"Figure {name}")


def built(*figures, **changes):
    arguments = {
        "costs": COSTS,
        "provenance": {"Versions": {"torch": "2.13.0"}},
        "config": "model: tiny",
        "sources": [{"name": "comments", "kind": "sample", "licence": "MIT", "citation": "this project"}],
        "not_run": ["Perspective: no key."],
    }
    return page.build(figures, **(arguments | changes))


def test_every_figure_has_a_caption_with_n_interval_and_scorer(tmp_path):
    text = Page(built(shown(tmp_path, metrics(), "a"), shown(tmp_path, metrics(n=24), "b")))
    assert len(text.all("svg")) == len(text.all("figcaption")) == 2
    for caption, n in zip(text.all("figcaption"), (60, 24), strict=True):
        for words in (f"n = {n} dev", "95 % percentile bootstrap interval", "lexicon==1", "tiny, unsteered"):
            assert words in " ".join(caption.text.split())


def test_every_number_of_a_table_stands_with_its_interval_and_n_under_its_scorer(tmp_path):
    text = Page(built(shown(tmp_path, metrics())))
    cells = [cell.text.split() for cell in text.all("td") if "tbody" in cell.inside][: 2 * 3]
    assert cells[0] == ["0.300", "[0.270,", "0.330]", "n", "=", "60"]
    assert all(cell[-3:] == ["n", "=", "60"] for cell in cells)
    scorers = [caption.text for caption in text.all("caption") if "Scorer" in caption.text]
    assert [scorer.split(". ")[0] for scorer in scorers] == ["Scorer: lexicon==1", "Scorer: tiny, unsteered"]


def test_sample_data_is_marked_in_the_caption_and_in_its_rows_and_only_there(tmp_path):
    table = pd.concat([metrics(), metrics(methods=[("lm_steer", (1.0,))], data="sample")])
    text = Page(built(shown(tmp_path, table), sources=[]))
    rows = [head for head in text.all("th") if head.attributes.get("scope") == "row" and "prompts" in head.text]
    assert {("LM-Steer" in row.text, "sample data" in row.text) for row in rows} == {(True, True), (False, False)}
    assert "sample data (LM-Steer)" in text.all("figcaption")[0].text
    assert "sample data" not in built(shown(tmp_path, metrics()), sources=[])


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
    text = Page(
        built(
            figure, title=nasty, config=nasty, not_run=[nasty], provenance={nasty: {nasty: nasty}},
            sources=[{"name": nasty}], costs=COSTS.assign(rule=nasty),
        )
    )  # fmt: skip
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
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        (TEMPLATE.parent / "filled.rst").read_text()
    )
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


def test_a_number_without_an_interval_says_so():
    assert numbers.estimate(0.5, np.nan, np.nan) == ("0.500", "[no interval]")
    assert numbers.estimate(np.nan, np.nan, np.nan) == ("–", "")
