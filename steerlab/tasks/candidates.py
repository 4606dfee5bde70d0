"""Candidates: the answers among which the right one is to be found, so that chance is known."""

from collections.abc import Iterable

from steerlab.data.splits import share


def candidates(right: str, others: Iterable[str], n: int | None, key: str) -> list[str]:
    """The right answer and n - 1 of the others (None: all), in the order of the alphabet.

    The others are the first by hash of the key and their own text, so a larger n keeps those of a smaller one.
    Raises ValueError where there is no other.
    """
    wrong = sorted(set(others) - {right}, key=lambda text: (share(text, f"candidate {key}"), text))
    if not wrong:
        raise ValueError(
            f"{right!r} is the only answer there is, so it would always be found; give another one beside it"
        )
    return sorted([right, *wrong[: None if n is None else n - 1]])
