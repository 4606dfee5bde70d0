"""Methods, one file each. A steer is found by its class path, `steerlab.methods.<file>:<Class>`, one at a time."""

from importlib import import_module
from pathlib import Path

from steerlab.methods import steer_files
from steerlab.methods.protocol import Steer
from steerlab.models import ModelHandle


def load_class(path: str) -> type[Steer]:
    """The steer class at `module:Class`; raises ValueError for a path outside steerlab.methods or to nothing."""
    module, _, name = path.partition(":")
    if not module.startswith("steerlab.methods."):
        raise ValueError(f"{path!r} is no steer of this project; give steerlab.methods.<file>:<Class>")
    try:
        return getattr(import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"there is no steer {path!r}: {error}; correct the path") from error


def load(folder: Path, model: ModelHandle | None = None, *, steps: int | None = None) -> Steer:
    """The steer saved in `folder`, after so many training steps where it has several checkpoints (None: the last).

    With a model, raises SteerMismatch if it was fitted for another one.
    """
    record, _ = steer_files.read(folder)
    if model is not None:
        steer_files.check_model(record, (model.info.name, model.info.revision))
    return load_class(record.steer).load(folder, **({} if steps is None else {"steps": steps}))
