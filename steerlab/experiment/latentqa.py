"""LatentQA's part of the experiment: which readers are trained, and what they are asked about states they never saw.

For each model, setting and seed a decoder is trained on the table of latent reading, where the configuration names a
corpus; then its answers about dev and test rows are judged with the rows' own states, with others' and with none. If
asked, it is also asked for objects of relations and for hidden system prompts, and others are trained on a share of the
labels or with another rank. A method that asks a reader is trained through one of them, on dialogs with what the reader
is wished to answer.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from steerlab.data import sources
from steerlab.experiment import cells, names
from steerlab.experiment.cells import Cell
from steerlab.experiment.codes import code_digest
from steerlab.experiment.lookups import compute, versions_of
from steerlab.experiment.registry import TASKS, Method

READS_BY = "steerlab/latent_reads.py"  # with what it imports: all that decides which states are captured


def readers(config: dict, model: str, pattern: str = names.READER) -> list[str]:
    """The readers of a model, or what is made with each of them."""
    if not config["latent_reading"]["corpora"]:
        return []
    return [
        pattern.format(model=model, setting=each, seed=seed) for each in _settings(config) for seed in _seeds(config)
    ]


def scaled_readers(config: dict, model: str, pattern: str = names.READER) -> list[str]:
    """The readers of a model that are compared by their training labels and ranks, or what is made with each of them.

    They are of the first setting; the reader of all labels with the configuration's rank is one of `readers`.
    """
    asked = config["latentqa"]["scaling"]
    if not asked or not config["latent_reading"]["corpora"]:
        return []
    first = _settings(config)[0]
    rank = hyperparameters(config, first)["rank"]
    sizes = dict.fromkeys([*(_sized(first, rank, **size) for size in asked), first])
    return [pattern.format(model=model, setting=size, seed=seed) for size in sizes for seed in _seeds(config)]


def _settings(config: dict) -> list[str]:
    return config["latentqa"]["settings"]


def _seeds(config: dict) -> list[int]:
    own = config["latentqa"]["seeds"]
    return config["run"]["seeds"] if own is None else own


def _sized(setting: str, usual_rank: int, labels: float = 1.0, rank: int | None = None) -> str:
    """How a reader's setting is named with its share of the labels and its rank, where these are not the usual."""
    share = f"-labels{labels:g}" if labels < 1 else ""
    return setting + share + (f"-rank{rank}" if rank not in (None, usual_rank) else "")


_SIZED = re.compile(r"(?P<shown>[a-z]+)(-labels(?P<labels>[\d.]+))?(-rank(?P<rank>\d+))?")


def _parts(setting: str) -> tuple[str, float | None, int | None]:
    """What a reader of a setting is shown, its share of the labels and its rank; None for all and for the usual."""
    found = _SIZED.fullmatch(setting)
    assert found, f"no setting {setting!r}"
    labels, rank = found["labels"], found["rank"]
    return found["shown"], float(labels) if labels else None, int(rank) if rank else None


def hyperparameters(config: dict, setting: str) -> dict:
    """What a decoder of this setting is fitted with."""
    given = dict(config["latentqa"]["reader"])
    return given | given.pop("by_setting").get(setting, {})


def reader(config: dict, model: str, method: str, task: str, seed: int) -> str:
    """The reader through which a steer is trained: of the steer's seed, or of the first where that one has none."""
    setting = cells.instance(config, method, task).given["setting"] or config["latentqa"]["settings"][0]
    seeds = _seeds(config)
    return names.READER.format(model=model, setting=setting, seed=seed if seed in seeds else seeds[0])


# ---- control: what the readers are wished to answer ----

CONTROLS = "latentqa_controls"  # the source of the wishes that have a name


def wishes(config: dict, method: str, task: str) -> list[str]:
    """The controls that a method is trained for, the task's own unless others are given: one, or one a block.

    Names in the source CONTROLS, or paths of the user's own files, which end with .json.
    """
    given = cells.instance(config, method, task).given["wish"] or TASKS[task].wish or ""
    return [given] if isinstance(given, str) else given


def is_path(wish: str) -> bool:
    """Whether a wish is a file of the user's own rather than a name in the source of controls."""
    return wish.endswith(".json")


def control_sources(config: dict, method: str, task: str) -> list[str]:
    """The sources of a control's table: of what the model is asked, and of the wishes that have a name."""
    named = [wish for wish in wishes(config, method, task) if not is_path(wish)]
    return ["instructions", *([CONTROLS] if named else [])]


def controlled(config: dict) -> list[Cell]:
    """The cells whose steers are trained through a reader."""
    return [
        cell
        for cell in cells.by_key(config).values()
        if cells.instance(config, cell.method, cell.task).method.asks_reader
    ]


def impossible(config: dict) -> Iterator[str]:
    """What keeps controls from being trained, one line each."""
    for cell in controlled(config):
        given, where = cells.instance(config, cell.method, cell.task).given, f"{cell.method} on {cell.task}"
        if not config["latent_reading"]["corpora"]:
            yield f"{where}: it learns through a reader, and none is trained; name latent_reading.corpora: [latentqa]"
        if given["setting"] not in (None, *config["latentqa"]["settings"]):
            yield (
                f"{where}: no reader of the setting {given['setting']} is trained; add it to latentqa.settings, or set "
                "steers.latentqa.setting to null"
            )
        if not isinstance(given["wish"], str | None) and not given["per_layer_loss"]:
            yield f"{where}: a wish a block needs a loss a block; set steers.latentqa.per_layer_loss, or give one wish"
        for wish in wishes(config, cell.method, cell.task):
            if is_path(wish) and not Path(wish).is_file():
                yield f"{where}: there is no wish {wish}; correct its path, as seen from where the run starts"


def unknown_wishes(config: dict, doors: dict[str, str]) -> Iterator[str]:
    """The names that the door of CONTROLS has no file of, one line each."""
    if CONTROLS not in doors:
        return
    known = [Path(file.name).stem for file in sources.table()[CONTROLS].doors[doors[CONTROLS]].files]
    for cell in controlled(config):
        for wish in wishes(config, cell.method, cell.task):
            if not is_path(wish) and wish not in known:
                close = difflib.get_close_matches(wish, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}, or give a file"
                where = f"{cell.method} on {cell.task}: the door {doors[CONTROLS]} of {CONTROLS}"
                yield f"{where} has no wish {wish!r}; {hint}"


def summary(config: dict) -> str:
    """What is asked for, for the plan's line; "" for nothing."""
    models = config["run"]["models"]
    count = len({file for model in models for kind in (readers, scaled_readers) for file in kind(config, model)})
    return f"; LatentQA: {count} reader{'s' * (count > 1)}" if count else ""


# ---- specs, one a rule, as in steerlab.experiment.specs ----


def train_reader(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    """How many processes train together, and how, moves the last bits; of one alone nothing is said."""
    shown, _, rank = _parts(setting)
    given = hyperparameters(config, shown)
    if rank:  # alpha / rank, which scales the changes, stays
        given |= {"rank": rank, "alpha": given["alpha"] * rank / given["rank"]}
    shared = {key: config["latentqa"][key] for key in ("processes", "sharding")}
    together = shared if shared["processes"] > 1 else {}
    return _reading(config, setting, seed) | together | {"hyperparameters": given}


def read_attributes(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    """What the reader is shown, and how it is asked for its answers."""
    return _reading(config, setting, seed) | _asking(config)


def answer_relations(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    """The same, and whether the conditions that rest on no reader stand beside it."""
    return _reading(config, setting, seed) | _asking(config) | _beside(config, setting, seed)


def identify_system_prompts(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    """The same, and how much of its own reply the model in words is shown, in tokens."""
    reply = {"reply_tokens": config["system_prompts"]["reply_tokens"]}
    return _reading(config, setting, seed) | _asking(config) | _beside(config, setting, seed) | reply


def make_control_table(config: dict, doors: dict, *, method: str, task: str) -> dict:
    """The wishes and the nudge that a control learns, and the doors of what the model reads meanwhile."""
    settings = {"wishes": wishes(config, method, task), "nudge": cells.instance(config, method, task).given["nudge"]}
    return {"doors": {name: doors[name] for name in control_sources(config, method, task)}, "settings": settings}


def measure_bias(config: dict, doors: dict, *, model: str, seed: str) -> dict:
    """The methods and strengths under which pairs of sentences are scored, and how many tokens at a time."""
    asked = [
        {"method": cell.method, "rendering": line.rendering, "strengths": list(cell.strengths) if line.steer else []}
        for cell, line in biased(config, model, int(seed))
    ]
    batches = {"tokens_a_batch": config["scores"]["answers"]["tokens_a_batch"]}
    return compute(config) | batches | {"asked": asked, "seed": int(seed)}


def biased(config: dict, model: str, seed: int) -> list[tuple[Cell, Method]]:
    """The cells of a model whose likelihoods of given sentences are measured with a seed, and their methods."""
    found = [cell for cell in cells.by_key(config).values() if TASKS[cell.task].given and cell.model == model]
    return [(cell, cells.instance(config, cell.method, cell.task).method) for cell in found if seed in cell.seeds]


def _reading(config: dict, setting: str, seed: str) -> dict:
    """What states are captured with; all rules of a reader open the same shards."""
    captured = {"activations": config["activations"], "capture_code": code_digest(READS_BY)}
    shown, labels, _ = _parts(setting)
    return compute(config) | captured | {"setting": shown, "labels": labels, "seed": int(seed)}


def _asking(config: dict) -> dict:
    how = {key: config["latentqa"][key] for key in ("batch_rows", "max_new_tokens")}
    return how | {"probe": versions_of("scikit-learn")}


def _beside(config: dict, setting: str, seed: str) -> dict:
    """beside: True for the one reader of a model beside whose rows those stand that depend on no reader."""
    return {"beside": (setting, int(seed)) == (_settings(config)[0], _seeds(config)[0])}
