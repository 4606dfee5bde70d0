"""The page in a real browser, on a phone and on a desk: nothing overflows, nothing is fetched, everything is there."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab import reference
from steerlab.figures import norm_consistency, style, toxicity
from steerlab.report import audit, cards, page
from tests.browser import needs_chromium, opened, overflow
from tests.unit import test_figures, test_figures_hpr
from tests.unit.test_report import COSTS

pytestmark = needs_chromium

WIDTHS = (390, 1280)
LONG = "a-model-with-a-name-that-nobody-can-read-aloud-and-that-has-no-space-" * 3
METHODS = (("base", (0.0,)), ("lm_steer", (0.5, 1.0)), ("random_lm_steer", (1.0,)))


def drawn(folder: Path, name: str, module, table: pd.DataFrame, group: str) -> page.Figure:
    """A figure of the project with its table and a caption that has a word wider than a phone."""
    style.save(module.plot(table), folder / f"{name}.svg", folder / f"{name}.pdf")
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / f"{name}.rst").write_text(f"What is shown of ``{LONG}`` (n = 60).")
    return page.figure(folder / f"{name}.svg", title=f"{name}, {LONG}", group=group)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of figures as the project draws them, of very wide tables and long names."""
    folder = tmp_path_factory.mktemp("report")
    of_toxicity = toxicity.table(test_figures.metrics(methods=METHODS))
    of_norms = norm_consistency.table(test_figures_hpr.norms(hpr=0.0, random_hpr=0.01, iti=0.3), model=LONG)
    wide = pd.DataFrame({f"a_column_of_numbers_{place}": np.arange(50.0) / (place + 1) for place in range(40)})
    wide.insert(0, "text", [f"{LONG} and some words", *["short"] * 49])
    figures = [
        drawn(folder, "toxicity", toxicity, of_toxicity, "Methods side by side"),
        drawn(folder, "norms", norm_consistency, of_norms, "A paper"),
    ]
    people = pd.DataFrame({"judge": [LONG, "ann"], "pairs": [100, 100], "kappa": [0.5, np.nan]})
    given = {"name": LONG, "door": "sample", "licence": "MIT", "citation": LONG, "origin": LONG, "files": [[LONG, 12]]}
    text = page.build(
        [*figures, page.Figure("wide", "wide", figures[0].svg, wide, "A wide table.", "A paper")],
        costs=COSTS.assign(rule=LONG.replace("-", "_")),
        provenance={"Versions": {"torch": LONG}},
        config=f"model: {LONG}\n" * 3,
        cards={
            "Data": cards.sources([given | {"used": [("toxicity", "prompts")]}], {}),
            "Papers": cards.papers(reference.papers()),
        },
        not_run=[LONG],
        sections=audit.sections([f"results/audit/{LONG}/pairs.csv"], [people]),
    )
    path = folder / "index.html"
    path.write_text(text)
    return path


@pytest.fixture(scope="module", params=WIDTHS)
def shown(request: pytest.FixtureRequest, file: Path) -> Iterator:
    """The page in a window; `page.asked` are the addresses that it asked for."""
    with opened(width=request.param) as window:
        window.asked = []
        window.on("request", lambda asked: window.asked.append(asked.url))
        window.goto(file.as_uri())
        yield window


def test_the_page_is_as_wide_as_its_window_and_asks_for_nothing_but_itself(shown, file: Path):
    shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert overflow(shown) == 0
    shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = false)")
    assert overflow(shown) == 0
    assert shown.errors == [] and shown.asked == [file.as_uri()]


def test_every_figure_is_visible_whole(shown):
    boxes = [figure.bounding_box() for figure in shown.query_selector_all("figure svg")]
    assert len(boxes) == 3
    for box in boxes:
        assert box["width"] > 300 and box["height"] > 100
        assert box["x"] >= 0 and box["x"] + box["width"] <= shown.viewport_size["width"]
    drawn = shown.evaluate("[...document.querySelectorAll('figure svg')].map(svg => svg.getBBox().width)")
    assert all(width > 100 for width in drawn)


def test_wide_tables_scroll_in_their_own_boxes(shown):
    boxes = shown.evaluate(
        "[...document.querySelectorAll('.wide')].map(box => [box.scrollWidth, box.clientWidth, box.scrollHeight])"
    )
    assert all(height > 30 and width <= shown.viewport_size["width"] for _, width, height in boxes)
    assert max(inner for inner, _, _ in boxes) > 2 * shown.viewport_size["width"]
    shown.evaluate("document.querySelector('#wide .wide').scrollLeft = 300")
    assert shown.evaluate("document.querySelector('#wide .wide').scrollLeft") == 300
    assert shown.evaluate("window.scrollX") == 0


def test_no_words_run_over_into_the_next_cell(shown):
    over = "cell => cell.scrollWidth > cell.clientWidth + 1"
    cells = f"[...document.querySelectorAll('th, td, dd')].filter({over}).map(cell => cell.innerText)"
    assert shown.evaluate(cells) == []


def test_every_link_within_the_page_has_its_target(shown):
    links = shown.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))")
    assert len(links) > 10
    assert [name for name in links if shown.query_selector(f'[id="{name}"]') is None] == []


def test_the_contents_can_be_tapped_and_lead_to_a_figure_and_back(shown):
    tapped = shown.query_selector_all("nav > ul > li > a, nav summary")
    assert all(each.bounding_box()["height"] >= 24 for each in tapped)
    shown.click("nav summary >> nth=1")
    shown.click('nav a[href="#wide"]')
    top = shown.query_selector("#wide").bounding_box()["y"]
    assert 0 <= top < 200
    shown.click("a.top")
    assert 0 <= shown.query_selector("#contents").bounding_box()["y"] < 50


def test_bibtex_opens_and_the_numbers_of_a_figure_are_saved(shown, tmp_path: Path):
    shown.click(".card summary >> nth=0")
    assert shown.query_selector(".card pre").is_visible()
    assert shown.query_selector(".card pre").inner_text().startswith("@inproceedings{han2024word,")
    with shown.expect_download() as saved:
        shown.click("#wide figcaption a")
    saved.value.save_as(tmp_path / "saved.csv")
    assert saved.value.suggested_filename == "wide.csv" and len(pd.read_csv(tmp_path / "saved.csv")) == 50


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(
      part => part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
  };
  return ['h1', 'nav a', 'figcaption', 'dt', 'dd', '.sample', '.n', '.change', 'pre', 'summary', '.top'].map(name => {
    const element = document.querySelector(name);
    const [one, other] = [light(getComputedStyle(element).color), light(paper(element))].sort((a, b) => b - a);
    return [name, (one + 0.05) / (other + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper_in_light_and_dark(shown, scheme: str):
    """WCAG 2's contrast for text, 4.5 to 1."""
    shown.emulate_media(color_scheme=scheme)
    found = dict(shown.evaluate(CONTRAST))
    assert {name for name, ratio in found.items() if ratio < 4.5} == set() and overflow(shown) == 0
    papers = [
        shown.evaluate(f"getComputedStyle(document.querySelector('{name}')).backgroundColor")
        for name in ("body", "figure svg")
    ]
    white = "rgb(255, 255, 255)"  # figures have their own paper
    assert papers == [white if scheme == "light" else "rgb(25, 26, 27)", white]
