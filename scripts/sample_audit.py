"""Sample pairs of a steered and an unsteered continuation for people to judge blind, and the key apart from them."""

import json
from pathlib import Path

from steerlab.job import job


def run(
    *, steered: list[Path], other: list[Path], choice: Path, table: Path, pairs: Path, key: Path, spec: dict
) -> None:
    """Write two CSV. steered, other: continuations, one file a seed; choice: says at which strength the steer's."""
    from steerlab.data import tables
    from steerlab.metrics import audit

    strength = json.loads(choice.read_text())["pick"]["strength"]
    ours, theirs = tables.continuations(steered, spec["seeds"]), tables.continuations(other, spec["base_seeds"])
    prompts = dict(tables.prompts(table, split="test", rendering="plain"))
    how = {"quantity": spec["about"]["quantity"], "n": spec["pairs"], "seed": spec["seed"]}
    shown, known = audit.pairs(ours[ours["strength"] == strength], theirs, prompts, **how)
    shown.to_csv(pairs, index=False)
    known.assign(**spec["about"], strength=strength).to_csv(key, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, **j.outputs, spec=j.spec)
