"""LatentQA's part of the experiment: which readers are trained, and what they are asked about states they never saw.

For each model, setting and seed a decoder is trained on the table of latent reading, where the configuration names a
corpus; then its answers about dev and test rows are judged with the rows' own states, with others' and with none. If
asked, it is also asked for objects of relations and for hidden system prompts, and others are trained on a share of the
labels or with another rank.
"""

import re

from steerlab.experiment import names
from steerlab.experiment.codes import code_digest
from steerlab.experiment.lookups import compute, versions_of

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
    return _reading(config, setting, seed) | _asking(config)


def answer_relations(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    return _reading(config, setting, seed) | _asking(config) | _beside(config, setting, seed)


def identify_system_prompts(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    reply = {"reply_tokens": config["system_prompts"]["reply_tokens"]}
    return _reading(config, setting, seed) | _asking(config) | _beside(config, setting, seed) | reply


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
