"""The report's page: figures with their captions, tables of the same numbers, costs, cards and what was not run.

One HTML file that needs nothing else: figures are inlined, nothing is fetched, no script runs. Each number stands with
its n, its interval and its scorer, and is marked where it rests on sample data.
"""

import base64
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docutils.core
import jinja2
import pandas as pd
from markupsafe import Markup

from steerlab.report import costs as job_costs
from steerlab.report import numbers, tables
from steerlab.report.cards import Card

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


@dataclass(frozen=True)
class Figure:
    """A figure as it stands on the page.

    name: unique on the page, letters, digits, "-" and "_"; svg: the file's text; csv: the table behind it, any tidy
    one (see steerlab.report.tables); caption: reStructuredText, filled; group: the heading that it stands under; files:
    where it lies, without an ending.
    """

    name: str
    title: str
    svg: str
    csv: pd.DataFrame
    caption: str
    group: str = "Results"
    files: str = ""


@dataclass(frozen=True)
class Section:
    """What else stands on the page, after the figures. text: reStructuredText; table: any tidy one."""

    title: str
    text: str
    table: pd.DataFrame | None = None


def figure(svg: Path, *, title: str, group: str = "Results") -> Figure:
    """Read a figure with the table (.csv) and the caption (.rst) that stand beside it under the same name.

    Its name on the page is made of its folder's and its own, as models draw figures of the same file names.
    """
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{svg.parent.name}-{svg.stem}")
    # Only an empty cell is missing: "null" and "NA" are words that a table of tokens may hold.
    table = pd.read_csv(svg.with_suffix(".csv"), dtype={"seed": str}, keep_default_na=False, na_values=[""])
    caption = svg.with_suffix(".rst").read_text()
    return Figure(name, title, svg.read_text(), table, caption, group, svg.with_suffix("").as_posix())


def build(
    figures: Sequence[Figure],
    *,
    costs: pd.DataFrame,
    provenance: Mapping[str, Mapping[str, object]],
    config: str,
    cards: Mapping[str, Sequence[Card]],
    not_run: Sequence[str],
    steers: Sequence[tuple[str, str]] = (),
    sections: Sequence[Section] = (),
    title: str = "Steering language models: results of this run",
) -> str:
    """The page as HTML.

    costs: as from steerlab.report.costs.collect. provenance: sections of names and values, such as
    {"Versions": {"torch": "2.13.0"}}. config: the configuration in effect, as text. cards: by heading, of data, models,
    scorers and papers. not_run: a sentence for each thing left out. steers: (title, address) of the cards of steers,
    pages beside this one. sections: after the figures, in their order.
    Figures of one group stand under its heading, groups in the order in which they first come.
    Raises ValueError for two figures of one name, or two sections or headings of cards.
    """
    names = [figure.name for figure in figures]
    if len(set(names)) != len(names):
        raise ValueError(f"report: figures {names} share a name; give each its own")
    titles = [*(section.title for section in sections), *cards]
    if len({_id(title) for title in titles}) != len(titles):
        raise ValueError(f"report: headings {titles} share a name; give each its own")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("steerlab.report", "."),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["digits"] = numbers.digits
    rules = job_costs.by_rule(costs)
    return environment.get_template("page.html.j2").render(
        title=title,
        groups=_grouped(figures),
        costs=rules.to_dict("records"),
        total={"jobs": int(rules.jobs.sum()), "seconds": float(rules.seconds.sum()), "peak_mib": rules.peak_mib.max()},
        provenance=provenance,
        config=config,
        cards=[{"name": _id(title), "title": title, "cards": shown} for title, shown in cards.items()],
        not_run=not_run,
        steers=steers,
        sections=[_section(each) for each in sections],
    )


def _id(title: str) -> str:
    """A heading as the page's own address of it."""
    return "about-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _section(section: Section) -> dict[str, object]:
    name = _id(section.title)
    shown = [] if section.table is None else tables.shown(section.table)
    return {"name": name, "title": section.title, "text": Markup(_html(section.text)), "tables": shown}


def _grouped(figures: Sequence[Figure]) -> list[dict[str, object]]:
    names = list(dict.fromkeys(figure.group for figure in figures))
    return [
        {"name": f"group-{place}", "title": name, "figures": [_shown(each) for each in figures if each.group == name]}
        for place, name in enumerate(names, start=1)
    ]


def _shown(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name,
        "title": figure.title,
        "svg": Markup(_inlined(figure)),
        "caption": Markup(_html(figure.caption)),
        "tables": tables.shown(figure.csv),
        "files": figure.files,
        "csv": base64.b64encode(figure.csv.to_csv(index=False).encode()).decode(),
    }


def _html(caption: str) -> str:
    """reStructuredText as HTML; a caption can neither include files nor bring HTML of its own."""
    settings = {"file_insertion_enabled": False, "raw_enabled": False, "halt_level": 2, "report_level": 5}
    return docutils.core.publish_parts(caption, writer="html5", settings_overrides=settings)["fragment"]  # pyright: ignore


def _inlined(figure: Figure) -> str:
    """The figure as an <svg> element: as wide as its column, its ids unique on the page, named for screen readers."""
    ElementTree.register_namespace("", _SVG.strip("{}"))
    ElementTree.register_namespace("xlink", _XLINK.strip("{}"))
    root = ElementTree.fromstring(figure.svg)
    prefix = f"{figure.name}-"
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet inside an inlined figure would apply to the whole page.
            if child.tag in (f"{_SVG}style", f"{_SVG}metadata"):
                parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, prefix + value)
            elif key in ("href", f"{_XLINK}href") and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            else:
                element.set(key, re.sub(r"url\(#", f"url(#{prefix}", value))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")  # what matplotlib's style sheet said
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}title")
    root.set("aria-describedby", f"{prefix}caption")
    name = ElementTree.Element(f"{_SVG}title", id=f"{prefix}title")
    name.text = figure.title
    root.insert(0, name)
    return ElementTree.tostring(root, encoding="unicode")
