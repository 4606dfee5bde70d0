"""Over how many jobs the work of one file is scattered. It changes no byte, so it is in no spec.

Each of these jobs, a shard, computes its share of the batches into the store; the job that makes the file waits for all
of them, finds every batch there and gathers. Snakemake remakes a file whose set of inputs changed, and all that follows
from it, so a file keeps the number of shards that it was made with as long as its spec stands.
"""

import json
from collections.abc import Callable
from pathlib import Path

from steerlab.experiment import lookups, names

LEFT = Path("results/shards")  # sidecars of shards; where there are none, no file was ever made of several
STAGES = {"capture_activations": "activations", "generate_continuations": "generations"}  # of other rules: scores


def asked(config: dict, rule: str) -> int:
    """How many shards the configuration asks a rule for; 1 where no model runs."""
    runs_model = rule != "score_texts" or lookups.runs_classifier(config, lookups.scorers_of(config, rule))
    return config["shards"][STAGES.get(rule, "scores")] if runs_model else 1


def of_file(path: str, number: int, spec: Callable[[], str]) -> list[str]:
    """What a file that is asked to be made of `number` shards waits for: their outputs, or nothing for a single one.

    spec: gives the file's present spec; it is asked only where the file was made of another number.
    """
    made = _made_of(Path(names.sidecar(path)), number, spec)
    pattern = names.shard(path)
    return [pattern.format(shard=each, shards=made) for each in range(1, made + 1)] if made > 1 else []


def _made_of(sidecar: Path, number: int, spec: Callable[[], str]) -> int:
    try:
        about = json.loads(sidecar.read_text())
    except (OSError, ValueError):  # not made yet, or not known how
        return number
    made = about.get("shards", 1)
    return made if made == number or about.get("spec") == json.loads(spec()) else number
