"""Numbers as a reader sees them: three significant digits, the interval in brackets."""

import math


def estimate(value: float, low: float, high: float) -> tuple[str, str]:
    """The value and its interval: (0.2331, 0.18, 0.2912) gives "0.233" and "[0.180, 0.291]".

    A missing value is "–"; a missing interval is "[no interval]", because a number without one must not look exact.
    """
    if math.isnan(value):
        return "–", ""
    if math.isnan(low) or math.isnan(high):
        return digits(value), "[no interval]"
    return digits(value), f"[{digits(low)}, {digits(high)}]"


def change(value: float, low: float, high: float) -> tuple[str, str]:
    """A difference and its interval, with their signs: "+0.120" and "[−0.0300, +0.270]"; missing ones as above."""
    if math.isnan(value) or math.isnan(low) or math.isnan(high):
        return estimate(value, low, high)
    return _signed(value), f"[{_signed(low)}, {_signed(high)}]"


def digits(value: float) -> str:
    """Three significant digits, without an exponent: 0.0512, 12.3, 1230; "–" for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")  # first, because 9.996 has one digit before the point and 10.0 two
    decimals = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"+{digits(value)}" if value > 0 else digits(value)
