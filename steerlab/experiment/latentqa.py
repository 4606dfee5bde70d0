"""LatentQA's part of the experiment: which readers are trained, and what they are asked about states they never saw.

For each model, setting and seed a decoder is trained on the table of latent reading, where the configuration names a
corpus; then its answers about dev and test rows are judged with the rows' own states, with others' and with none.
"""

from steerlab.experiment import names
from steerlab.experiment.codes import code_digest
from steerlab.experiment.lookups import compute, versions_of

READS_BY = "steerlab/latent_reads.py"  # with what it imports: all that decides which states are captured


def readers(config: dict, model: str, pattern: str = names.READER) -> list[str]:
    """The readers of a model, or what is made with each of them."""
    if not config["latent_reading"]["corpora"]:
        return []
    settings = config["latentqa"]
    seeds = config["run"]["seeds"] if settings["seeds"] is None else settings["seeds"]
    return [pattern.format(model=model, setting=each, seed=seed) for each in settings["settings"] for seed in seeds]


def hyperparameters(config: dict, setting: str) -> dict:
    """What a decoder of this setting is fitted with."""
    given = dict(config["latentqa"]["reader"])
    return given | given.pop("by_setting").get(setting, {})


def summary(config: dict) -> str:
    """What is asked for, for the plan's line; "" for nothing."""
    count = sum(len(readers(config, model)) for model in config["run"]["models"])
    return f"; LatentQA: {count} reader{'s' * (count > 1)}" if count else ""


# ---- specs, one a rule, as in steerlab.experiment.specs ----


def train_reader(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    """How many processes train together, and how, moves the last bits; of one alone nothing is said."""
    shared = {key: config["latentqa"][key] for key in ("processes", "sharding")}
    together = shared if shared["processes"] > 1 else {}
    return _reading(config, setting, seed) | together | {"hyperparameters": hyperparameters(config, setting)}


def read_attributes(config: dict, doors: dict, *, model: str, setting: str, seed: str) -> dict:
    how = {key: config["latentqa"][key] for key in ("batch_rows", "max_new_tokens")}
    return _reading(config, setting, seed) | how | {"probe": versions_of("scikit-learn")}


def _reading(config: dict, setting: str, seed: str) -> dict:
    """What states are captured with; both rules open the same shards."""
    captured = {"activations": config["activations"], "capture_code": code_digest(READS_BY)}
    return compute(config) | captured | {"setting": setting, "seed": int(seed)}
