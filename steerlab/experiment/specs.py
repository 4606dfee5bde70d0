"""The spec of each stage: exactly the leaves that change its bytes, and what its script needs to know.

One function a rule, `(config, doors, **wildcards) -> dict`. The rules turn it into sorted JSON; a change in it, and in
nothing else of the configuration, reruns the rule.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from steerlab.data import sources
from steerlab.experiment.codes import ROOT, code_digest
from steerlab.experiment.registry import METHODS, TASKS, TOXICITY_SCORERS


def fetch_source(config: dict, doors: dict, *, source: str, door: str) -> dict:
    return {"source": source, "door": door, "pinned": sources.source_spec(source, door)}


def make_task_table(config: dict, doors: dict, *, task: str) -> dict:
    used = {name: doors[name] for name in TASKS[task].sources}
    settings = config["tasks"][task] | {"renderings": ["plain", "instructed"]}
    return {"module": TASKS[task].module, "doors": used, "settings": settings}


def prepare_model(config: dict, doors: dict, *, model: str) -> dict:
    versions = _versions("torch", "transformers")
    return {"name": model, "definition": config["models"][model], "versions": versions}


def capture_activations(config: dict, doors: dict, *, model: str, task: str, site: str, positions: str) -> dict:
    return _captured(config, site, positions)


def train_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    hyperparameters = {key: value for key, value in config["steers"][method].items() if key != "strengths"}
    return _captured(config, METHODS[method].captures, METHODS[method].positions) | {
        "steer": METHODS[method].steer,
        "hyperparameters": hyperparameters,
        "seed": int(seed),
    }


def generate_continuations(
    config: dict, doors: dict, *, model: str, method: str, task: str, split: str, seed: str
) -> dict:
    return _compute(config) | {
        "steer": METHODS[method].steer,
        "rendering": METHODS[method].rendering,
        "strengths": config["steers"][method]["strengths"] if METHODS[method].steer else [0.0],
        "decoding": config["generations"][task],
        "split": split,
        "seed": int(seed),
    }


def score_toxicity(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    scorer = TOXICITY_SCORERS[config["scores"]["toxicity"]["scorer"]]
    versions = _versions("alt-profanity-check", "scikit-learn")
    return {"scorer": scorer, "versions": versions, "seeds": config["run"]["seeds"]}


def score_perplexity(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    return _compute(config) | config["scores"]["perplexity"] | {"seeds": config["run"]["seeds"], "split": split}


def compute_metrics(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    return config["metrics"] | {
        "model": model,
        "method": method,
        "task": task,
        "split": split,
        "seeds": config["run"]["seeds"],
        "data": "sample" if _rests_on_sample(doors, method, task) else "real",
    }


def plot_task(config: dict, doors: dict, *, model: str, task: str) -> dict:
    caption = ROOT / "captions" / f"{task}.rst"
    return {"caption": caption.read_text(), "confidence": config["metrics"]["confidence"]}


def build_report(config: dict, doors: dict) -> dict:
    sourced = {name: sources.table()[name] for name in doors}
    return {
        "config": config,
        "sources": [
            {"source": name, "door": doors[name], "licence": source.licence, "citation": source.citation}
            for name, source in sourced.items()
        ],
        "not_run": [
            f"{method}: not among run.methods of this configuration"
            for method in sorted(set(METHODS) - {"base"} - set(config["run"]["methods"]))
        ],
    }


def _compute(config: dict) -> dict:
    where = {key: config[key] for key in ("device", "dtype", "attention", "threads")}
    return where | {"versions": _versions("torch", "transformers")}


def _captured(config: dict, site: str | None, positions: str) -> dict:
    """What activations are captured with; whoever opens them needs the same, and finds the same shards."""
    code = code_digest("scripts/capture_activations.py")
    return _compute(config) | {
        "site": site,
        "positions": positions,
        "activations": config["activations"],
        "capture_code": code,
    }


def _versions(*packages: str) -> dict[str, str | None]:
    """Installed versions of the packages that compute; None where one is not installed here."""
    found = dict.fromkeys(packages)
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _rests_on_sample(doors: dict, method: str, task: str) -> bool:
    """True if anything that the cell was trained or prompted with is sample data."""
    sampled = {name for name in TASKS[task].sources if doors[name] == "sample"}
    learnt_from = {"comments"} if METHODS[method].needs else set()
    return bool(sampled & (learnt_from | (set(TASKS[task].sources) - {"comments"})))
