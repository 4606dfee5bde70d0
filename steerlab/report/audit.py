"""What people say of the run's continuations, as a section of the page; before they have, how to ask them."""

from collections.abc import Sequence

import pandas as pd

from steerlab.report.page import Section

TITLE = "Judged by people"
NOBODY = """
Nobody has judged this run's continuations. Pairs of a steered and an unsteered continuation of the same test prompt,
left and right by lot, lie in ``{pairs}``; which side is which stands apart from them, in ``key.csv`` beside it. Give
each person a copy, called after them, and have them write *left*, *right* or *same* in its last column, without a look
at the key; name the copies under ``audit.sheets`` in the configuration and run again.
"""
SOMEBODY = """
How people and scorers judge the same pairs of a steered and an unsteered continuation, which people saw blind
(``{pairs}``). *steered has less*: the share of the decided pairs in which the unsteered text has more, with Wilson's
interval at 95 % (low, high); *agreement* and Cohen's *kappa*: with the person in *beside*, on the pairs that both
decided.
"""


def sections(pairs: Sequence[str], agreement: Sequence[pd.DataFrame]) -> list[Section]:
    """One section, or none for a run without pairs. pairs: the file's path, if any; agreement: the table, if any."""
    told = SOMEBODY if agreement else NOBODY
    return [Section(TITLE, told.format(pairs=file), next(iter(agreement), None)) for file in pairs]
