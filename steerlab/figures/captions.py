"""Captions: a template in reStructuredText in captions/ and a figure's facts give the words that stand below it.

The script that draws a figure writes its filled caption beside it, so that the report's page and Snakemake's own
report show the same words: the page reads that file, and Snakemake renders captions/filled.rst, which includes it.
"""

from collections.abc import Mapping

import jinja2


def caption(template: str, facts: Mapping[str, str]) -> str:
    """Fill a caption template (Jinja2 in reStructuredText) with the facts that a figure's module tells of its table.

    The template knows the words of `facts` and nothing else: an unknown word raises jinja2.UndefinedError.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, finalize=_escaped, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    return environment.from_string(template).render(facts).strip() + "\n"


def _escaped(value: object) -> object:
    """A value as reStructuredText that shows it letter by letter."""
    return "".join(f"\\{letter}" if letter in r"\`*_|" else letter for letter in str(value))
