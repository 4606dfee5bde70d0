"""The settings that a cell is run at, training steps and strength, and the one way to run a cell at all of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import methods, store
from steerlab.models import ModelHandle


def settings(
    steps: Sequence[int | str], strengths: Sequence[float | str], pick: Mapping[str, Any] | None
) -> list[tuple[int, float]]:
    """All pairs of steps and strengths, each once, in order; the word "pick" stands for what was picked.

    Raises ValueError for "pick" without a pick.
    """
    if pick is None and "pick" in (*steps, *strengths):
        raise ValueError("a setting is to be the pick, but no choice was made; choose the settings first")
    return list(
        dict.fromkeys(
            (int(pick["steps"] if one == "pick" else one), float(pick["strength"] if other == "pick" else other))  # pyright: ignore[reportOptionalSubscript]
            for one in steps
            for other in strengths
        )
    )


def at_settings(
    steer: Path | None,
    model: ModelHandle,
    settings: Sequence[tuple[int, float]],
    parts: Sequence[Any],
    compute: Callable[[Any], pd.DataFrame],
    *,
    has_checkpoints: bool,
    work: Path,
    desc: str,
    unit: str,
    share: store.Share = store.WHOLE,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """The rows of every part under every setting, with its steps and strength; finished ones lie in `work`.

    steer: a steer's folder, None for the model as it is; compute(part): the rows of a part, called while the model is
    steered. has_checkpoints: False for a derived steer, which is at the steps of what it is made from and no others.
    share: those of the pairs of setting and part that are asked for; columns: as of `store.resume`.
    """
    at = {steps: steps if steps and has_checkpoints else None for steps, _ in settings}
    fitted = {steps: methods.load(steer, model, steps=at[steps]) if steer else None for steps in at}
    plan = [(number, setting, place) for number, setting in enumerate(settings) for place in range(len(parts))]

    now: int | None = None
    with ExitStack() as opened:  # once for all parts of a setting: they share what is recorded of the steered model

        def rows(index: int) -> pd.DataFrame:
            nonlocal now
            number, (steps, strength), place = plan[index]
            one = fitted[steps]
            if one and number != now:
                opened.close()
                opened.enter_context(one.attached(model.load(), strength))
                now = number
            return compute(parts[place]).assign(steps=steps, strength=float(strength))

        names = [f"{number:03d}-{place:05d}" for number, _, place in plan]
        return store.resume(work, names, rows, desc=desc, unit=unit, share=share, columns=columns)
