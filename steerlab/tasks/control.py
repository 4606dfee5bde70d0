"""Control: dialogs that a model reads while it is changed, each with what a reader is wished to answer about them.

No prompt of a task stands here: what the model is asked are instructions of everyday matters, from a source of their
own, so that nothing that is tested on is an ancestor of a control.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.control_rows import crossed, crossed_per_layer
from steerlab.data.instructions import messages
from steerlab.data.latentqa_files import read_control


def make_table(
    raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping, own: Sequence[Path] = ()
) -> pd.DataFrame:
    """A row a dialog and pair of question and wished answer, as `steerlab.data.control_rows` makes it.

    raw, doors: folder of raw files and door of the sources instructions and, for wishes that have a name,
    latentqa_controls; own: files of the others, in their order. settings: {"wishes": names or paths, one for all blocks
    or one a block; "nudge": words before the user's last ones}. An instruction is asked once, with its first answer.
    """
    theirs, folder = iter(own), raw.get("latentqa_controls")
    files = [folder / f"{wish}.json" if folder and _is_name(wish) else next(theirs) for wish in settings["wishes"]]
    pairs = [read_control(file)[1] for file in files]
    asked = loaders.read("instructions", doors["instructions"], raw["instructions"])
    asked = asked.drop_duplicates(["instruction", "context"])
    dialogs = [messages(*row) for row in asked.itertuples(index=False, name=None)]
    if len(pairs) == 1:
        return crossed(dialogs, pairs[0], nudge=settings["nudge"])
    return crossed_per_layer(dialogs, pairs, nudge=settings["nudge"])


def _is_name(wish: str) -> bool:
    return not wish.endswith(".json")
