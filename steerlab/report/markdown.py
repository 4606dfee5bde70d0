"""Markdown in which what is shown becomes no markup, and the HTML of it.

Words of files and settings are escaped, texts of models stand in code fences that they cannot close.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import jinja2
from markupsafe import Markup

FRONT = "---\n"  # around what a hub reads

Cells = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of a card: its heads and its rows of words and numbers, not yet escaped."""

    heads: Cells
    rows: Sequence[Cells] = field(default_factory=list)


def escaped(words: object) -> str:
    """One line of Markdown that shows these words as they are, also in a table."""
    line = " ".join(str(words).split())
    return re.sub(r"([\\`*\[\]<>|&#~])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", lambda found: "\\" + found[0], line)


def fenced(text: str) -> str:
    """The text in a code fence that is longer than any run of backticks in it; what is no letter is shown as a picture
    of it, and what turns the direction of writing as a mark."""
    text = _CONTROLS.sub(lambda found: chr(0x2400 + ord(found[0])) if ord(found[0]) < 32 else "\ufffd", text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip() or '(nothing)'}\n{fence}"


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def as_markdown(table: Table) -> str:
    """The table with its cells escaped."""
    rows = [table.heads, ["---"] * len(table.heads)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines + ["| " + " | ".join(map(escaped, row)) + " |" for row in table.rows])


def environment(*, autoescape: bool) -> jinja2.Environment:
    """For the templates of this folder; Markdown has its own escapes and is not HTML."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("steerlab.report", "."),
        autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def html(card: str) -> str:
    """A card as a page of its own; its front matter is left out."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    # A table that is wider than a telephone scrolls in itself.
    region = '<div class="wide" role="region" tabindex="0" aria-label="table">\n<table>\n'
    reader.add_render_rule("table_open", lambda *_: region)
    reader.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    body = card.split(FRONT, 2)[2]
    title = _TITLE.search(body)
    assert title, "a card has a title"
    plain = re.sub(r"\\(.)", r"\1", title[1])
    template = environment(autoescape=True).get_template("card.html.j2")
    return template.render(title=plain, body=Markup(reader.render(body)))


_TITLE = re.compile(r"^# (.+)$", re.M)
