"""How ratios are printed."""

from math import isnan

from benchmarks.pairs import Ratio


def heading() -> str:
    return f"{'':44}{'ratio':>8}  {'95 % interval':>15}{'aim':>7}{'ours':>10}{'other':>10}{'tokens/s':>16}"


def line(ratio: Ratio) -> str:
    """A shortfall is said."""
    interval = f"{ratio.low:.3f}-{ratio.high:.3f}"
    figures = f"{ratio.ratio:8.3f}  {interval:>15}{ratio.aim:7.2f}{ratio.ours:10.3f}{ratio.other:10.3f} {ratio.unit:7}"
    rate = "" if isnan(ratio.tokens_a_second) else f"{ratio.tokens_a_second:8,.0f}"
    return f"{ratio.name:44}{figures}{rate:>8}{'' if ratio.met else '  SHORT'}"
