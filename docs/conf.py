"""The site that `make docs` builds of this folder: Sphinx, Markdown by MyST, the looks by furo.

All that a page needs lies in the built folder: no font, script or picture is fetched from elsewhere. Links to files of
the repository outside docs/ work on a git host as they are, and become downloads of these files in the site.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "steerlab"
copyright = "the authors of steerlab; MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of torch, pandas, numpy: their inventories would be fetched

myst_heading_anchors = 3  # as git hosts make them: `page.md#a-heading` leads to the same place in both
smartquotes = False
highlight_language = "none"  # of blocks without a language: formulas, trees of files, lines of a shell

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False

html_theme = "furo"
html_title = "steerlab"
html_copy_source = False
html_show_sphinx = False

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+\.md)\)")
_MARKUP = re.compile(r"[*_|\\<]")
_ARGUMENT = re.compile(r"\n(?=[a-z_][\w, ]*: |Returns |Raises |Source: )")  # begins a paragraph of its own


def _links_to_downloads(app, page, source):
    """MyST makes downloads of links to files, but takes one to Markdown for a page, which there is in docs/ alone."""
    source[0] = _OUTSIDE.sub(r"{download}`\1 <\2>`", source[0])


def _as_restructured_text(app, what, name, described, options, lines):
    """Docstrings are plain text in which `code` is all the markup; a paragraph with a table in it is shown as typed."""
    paragraphs = "\n".join(lines).strip("\n").split("\n\n")
    lines[:] = "\n\n".join(map(_paragraph, paragraphs)).splitlines() + [""]


def _paragraph(text):
    if " | " in text or re.search(r"^ ", text, re.M):
        return "::\n\n" + re.sub(r"^", "    ", text, flags=re.M)
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = [_MARKUP.sub(r"\\\g<0>", words) for words in parts[::2]]
    parts[1::2] = [f"\\ ``{code}``\\ " for code in parts[1::2]]
    return _ARGUMENT.sub("\n\n", "".join(parts))


def setup(app):
    """Sphinx calls this at the start of a build."""
    app.connect("source-read", _links_to_downloads)
    app.connect("autodoc-process-docstring", _as_restructured_text)
