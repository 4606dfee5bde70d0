"""The site of docs/: it builds without a warning, fetches nothing from elsewhere; its picture shows the stages."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from docs import stages
from tests.browser import needs_chromium, opened, overflow
from tests.workflow.project import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
FETCHES = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as by `make docs`: broken links and anchors, pages outside the contents and bad docstrings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [Path(sys.executable).with_name("sphinx-build"), "-qEaW", "--keep-going", ROOT / "docs", folder]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


class _Fetched(HTMLParser):
    """What a browser would fetch for a page without a click."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if value := dict(attrs).get(FETCHES.get(tag, "")):
            self.found.append(value)


def test_every_page_is_built(site: Path):
    assert {page.stem for page in PAGES} <= {page.stem for page in site.glob("*.html")}


def test_the_site_fetches_nothing_from_elsewhere(site: Path):
    fetched = [url for page in site.glob("*.html") for url in _Fetched(page.read_text()).found]
    styles = [sheet.read_text() for sheet in site.rglob("*.css")]
    fetched += [url for text in styles for url in re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", text)]
    assert len(fetched) > len(PAGES)
    assert [url for url in fetched if urlsplit(url).netloc] == []


@needs_chromium
def test_pages_fit_a_telephone_and_ask_no_network(site: Path):
    with opened(width=390) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "concepts", "latentqa", "api"):
            page.goto((site / f"{name}.html").as_uri())
            assert overflow(page) == 0, name
        assert not page.errors
    assert asked and all(url.startswith(("file:", "data:")) for url in asked), asked


def test_the_index_names_every_page():
    index = (ROOT / "docs/index.md").read_text()
    shown, *trees = index.split("```{toctree}")
    assert {page.name for page in PAGES} - {"index.md"} == set(re.findall(r"\]\(([\w-]+\.md)\)", shown))
    assert len(trees) > 1


def test_the_picture_of_the_stages_is_what_the_script_draws():
    assert (ROOT / "docs/stages.svg").read_text() == stages.drawn(), "make it again: .venv/bin/python docs/stages.py"


def test_the_stages_of_the_picture_are_the_snakefiles_in_its_order():
    snakefile = (ROOT / "Snakefile").read_text()
    heading = re.sub(r"\n# ", " ", snakefile.partition("\n# `")[0])
    assert " -> ".join(stages.STAGES) + "." in heading
    included = re.findall(r'^include: "rules/(\w+)\.smk"', snakefile, re.M)
    assert [name for name in included if name not in ("common", "classifiers")] == list(stages.STAGES)
    assert " -> ".join(stages.STAGES) in (ROOT / "README.md").read_text()


def _contrast(one: str, other: str) -> float:
    """Of two colours #rrggbb, as the WCAG define it: from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#131416"])  # furo's, light and dark
def test_the_picture_can_be_read_on_a_light_and_on_a_dark_page(page: str):
    colours = set(re.findall(r'(?:fill|stroke)="(#\w{6})"', stages.drawn()))
    assert colours == {stages.GREY, stages.BOX, stages.ON_BOX, stages.PALE, stages.ON_PALE}
    assert _contrast(stages.GREY, page) > 3.5
    assert _contrast(stages.BOX, stages.ON_BOX) > 7 and _contrast(stages.PALE, stages.ON_PALE) > 7


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_to_elsewhere_are_well_formed(page: Path):
    for link in re.findall(r"\]\((\w+:[^)]*)\)", page.read_text()):
        parts = urlsplit(link)
        assert parts.scheme == "https" and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
        assert re.fullmatch(r"[\w./~@:%+-]*", parts.path), link
