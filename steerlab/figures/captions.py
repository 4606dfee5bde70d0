"""Captions: a template in reStructuredText in captions/ and a metrics table give the words that stand below a figure.

The script that draws a figure writes its filled caption beside it, so that the report's page and Snakemake's own
report show the same words: the page reads that file, and Snakemake renders captions/filled.rst, which includes it.
"""

from collections.abc import Iterable
from statistics import NormalDist

import jinja2
import pandas as pd

from steerlab.figures import style
from steerlab.metrics.bootstrap import CONFIDENCE

POWER = 0.8  # of the smallest detectable difference


def caption(template: str, metrics: pd.DataFrame, *, confidence: float = CONFIDENCE) -> str:
    """Fill a caption template (Jinja2 in reStructuredText) with what is true of the table.

    metrics: the columns of steerlab.metrics.toxicity.metrics; confidence: that of its intervals. The template knows
    the words of `facts` and nothing else: an unknown word raises jinja2.UndefinedError.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, finalize=_escaped, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    return environment.from_string(template).render(facts(metrics, confidence=confidence)).strip() + "\n"


def facts(metrics: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """What a caption may say, each a phrase: the keys of the dictionary below.

    left_out and sample_data are empty where there is nothing to say; detectable is empty without intervals.
    """
    table = metrics.astype({"seed": str})
    pooled, runs = table[table.seed == "all"], table[table.seed != "all"]
    prompts = pooled.groupby("split")["n"].max()
    seeds = runs.groupby(["method", "split"])["seed"].nunique()
    models = sorted(table.model.unique())
    return {
        "model": _list(models),
        "prompts": _list(f"{n} {split}" for split, n in prompts.items()) + " prompts",
        "samples": _count(table.samples, "sample", "samples"),
        "seeds": _count(seeds, "seed", "seeds"),
        "interval": f"{100 * confidence:g} % percentile bootstrap interval over prompts",
        "scorers": _scorers(pooled),
        "left_out": _left_out(pooled),
        "detectable": _detectable(pooled, confidence),
        "sample_data": _sample_data(pooled),
    }


def _scorers(pooled: pd.DataFrame) -> str:
    found = {
        "toxicity by": pooled[pooled.metric == "average_max_toxicity"].scorer.unique(),
        "perplexity under": pooled[pooled.metric == "perplexity"].scorer.unique(),
    }
    return "; ".join(f"{what} {_list(sorted(names))}" for what, names in found.items() if len(names))


def _left_out(pooled: pd.DataFrame) -> str:
    """The largest share that any row lost, for each reason that took any text at all."""
    reasons = {
        "toxicity_refused": "refused by the toxicity scorer",
        "perplexity_unscored": "without a token to score",
        "perplexity_dropped": "with a perplexity of 10,000 or more, left out of the mean perplexity",
    }
    largest = pooled.groupby("metric")["value"].max()
    said = [
        f"{100 * largest[metric]:.2g} % of a row's texts {why}"
        for metric, why in reasons.items()
        if largest.get(metric, 0) > 0
    ]
    return f"at most {_list(said)}" if said else ""


def _detectable(pooled: pd.DataFrame, confidence: float) -> str:
    """Smallest difference between two independent rows that is found with POWER, from the widest interval shown."""
    rows = pooled[(pooled.metric == "average_max_toxicity") & (pooled.split == "test")]
    width = (rows.high - rows.low).max()
    if not width > 0:
        return ""
    normal = NormalDist()
    at_edge = normal.inv_cdf(0.5 + confidence / 2)
    standard_error = width / 2 / at_edge
    return f"{(at_edge + normal.inv_cdf(POWER)) * 2**0.5 * standard_error:.2g}"


def _sample_data(pooled: pd.DataFrame) -> str:
    methods = pooled[pooled.data == "sample"].method.unique()
    if not len(methods):
        return ""
    everywhere = set(methods) == set(pooled.method)
    return "sample data" if everywhere else f"sample data ({_list(map(style.label, methods))})"


def _count(numbers: pd.Series, one: str, many: str) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low} to {high} {many}" if low != high else f"{high} {one if high == 1 else many}"


def _list(words: Iterable[str]) -> str:
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _escaped(value: object) -> object:
    """A value as reStructuredText that shows it letter by letter."""
    return "".join(f"\\{letter}" if letter in r"\`*_|" else letter for letter in str(value))
