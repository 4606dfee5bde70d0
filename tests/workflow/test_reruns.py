"""What reruns after a change, and what does not: the job set of a dry-run on a finished run."""

import os
import re
from pathlib import Path

import pytest
import yaml

from steerlab.experiment import config
from tests.workflow.project import copy_finished, planned

# Jobs of the tiny preset by rule, for the methods base and caa: 2 seeds, 2 splits.
BASE = {"generate_continuations": 4, "score_toxicity": 2, "score_perplexity": 2, "compute_metrics": 2}
CAA = BASE
BOTH = {rule: 2 * jobs for rule, jobs in BASE.items()}
PAGE = {"plot_task": 1, "build_report": 1}
REPORT = {"build_report": 1}  # it prints the whole configuration
STEERS = {"train_steer": 2}
ACTIVATIONS = {"capture_activations": 1}
TABLE = {"make_task_table": 1}
MODEL = {"prepare_model": 1}
SCORED = {"score_toxicity": 4, "compute_metrics": 4}
PERPLEXITY = {"score_perplexity": 4, "compute_metrics": 4}

FROM_ACTIVATIONS = ACTIVATIONS | STEERS | CAA | PAGE
FROM_TABLE = TABLE | ACTIVATIONS | STEERS | BOTH | PAGE
FROM_MODEL = MODEL | ACTIVATIONS | STEERS | BOTH | PAGE
COMPUTE = ACTIVATIONS | STEERS | BOTH | PAGE

# Each leaf of the schema: another value, and the jobs that a dry-run then plans.
LEAVES = {
    "device": ("cuda", COMPUTE),
    "dtype": ("bfloat16", COMPUTE),
    "attention": ("eager", COMPUTE),
    "threads": (2, COMPUTE),
    "mem_mb": (5000, REPORT),
    "runtime": (30, REPORT),
    "store": ("elsewhere", REPORT),
    "run.models": (["tiny-llama", "tiny-gpt2"], MODEL | ACTIVATIONS | STEERS | BOTH | PAGE),
    "run.methods": (["base", "caa", "instructed"], BASE | PAGE),
    "run.tasks": None,  # there is one
    "run.seeds": ([0, 1, 2], STEERS | {"train_steer": 1} | {"generate_continuations": 4} | SCORED | PERPLEXITY | PAGE),
    "data.door": ("mirror", None),
    "data.mirror": (".", REPORT),
    "data.sources": ({"comments": "mirror"}, None),
    "models": ({"tiny-llama": {"seed": 1}}, FROM_MODEL),
    "tasks.toxicity.prompts.dev": (5, FROM_TABLE),
    "tasks.toxicity.prompts.test": (5, FROM_TABLE),
    "tasks.toxicity.comments": (11, FROM_TABLE),
    "tasks.toxicity.wording": ("Be kind. {text}", FROM_TABLE),
    "activations.batch_rows": (3, FROM_ACTIVATIONS),
    "activations.shard_rows": (7, FROM_ACTIVATIONS),
    "steers.caa.layer": (1, STEERS | CAA | PAGE),
    "steers.caa.multiplier": (2.0, STEERS | CAA | PAGE),
    "steers.caa.held_out": (0.3, STEERS | CAA | PAGE),
    "steers.caa.strengths": ([1.0], CAA | PAGE),
    "generations.toxicity.samples": (3, BOTH | PAGE),
    "generations.toxicity.max_new_tokens": (7, BOTH | PAGE),
    "generations.toxicity.min_new_tokens": (5, BOTH | PAGE),
    "generations.toxicity.temperature": (0.9, BOTH | PAGE),
    "generations.toxicity.top_p": (0.8, BOTH | PAGE),
    "generations.toxicity.batch_rows": (6, BOTH | PAGE),
    "scores.toxicity.scorer": None,  # there is one
    "scores.perplexity.tokens_a_batch": (128, PERPLEXITY | PAGE),
    "metrics.resamples": (60, {"compute_metrics": 4} | PAGE),
    "metrics.confidence": (0.9, {"compute_metrics": 4} | PAGE),
}


def test_the_table_of_leaves_has_every_leaf_of_the_schema():
    leaves = {".".join(path) for path, node in config.leaves(config.schema())}
    assert leaves == set(LEAVES)


@pytest.mark.parametrize("leaf", [leaf for leaf, change in LEAVES.items() if change and change[1]])
def test_a_changed_leaf_plans_exactly_the_jobs_that_depend_on_it(finished: Path, tmp_path: Path, leaf: str):
    value, jobs = LEAVES[leaf]
    overlay: object = value
    for key in reversed(leaf.split(".")):
        overlay = {key: overlay}
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    arguments = ("--configfile", "presets/tiny.yaml", str(tmp_path / "overlay.yaml"))
    expected = jobs if leaf != "run.models" else _for_the_second_model(jobs)
    assert planned(finished, *arguments) == expected


def _for_the_second_model(jobs: dict[str, int]) -> dict[str, int]:
    return {**jobs, "plot_task": 1, "build_report": 1}


def test_nothing_reruns_on_a_finished_run(finished: Path):
    assert planned(finished) == {}


def test_a_touch_of_every_file_reruns_nothing(finished: Path, tmp_path: Path):
    folder = copy_finished(finished, tmp_path / "touched")
    for path in folder.rglob("*"):
        if path.is_file() and "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)
    assert planned(folder) == {}


def test_a_comment_and_a_docstring_rerun_nothing(finished: Path, tmp_path: Path):
    folder = copy_finished(finished, tmp_path / "commented")
    for path in [*folder.glob("steerlab/**/*.py"), *folder.glob("scripts/*.py")]:
        text = path.read_text()
        path.write_text(re.sub(r'^"""', '"""Reworded. ', text, count=1) + "\n# a remark\n")
    assert planned(folder) == {}


# A module of the package: the jobs that depend on its code.
MODULES = {
    "steerlab/sites.py": COMPUTE,
    "steerlab/models.py": FROM_MODEL,
    "steerlab/activations.py": FROM_ACTIVATIONS,
    "steerlab/methods/caa.py": STEERS | CAA | PAGE,
    "steerlab/generations.py": BOTH | PAGE,
    "steerlab/scores/perplexity.py": PERPLEXITY | PAGE,
    "steerlab/scores/likelihood.py": PERPLEXITY | PAGE,
    "steerlab/scores/profanity_check.py": SCORED | PAGE,
    "steerlab/tasks/toxicity.py": FROM_TABLE,
    "steerlab/metrics/bootstrap.py": {"compute_metrics": 4} | PAGE,
    "steerlab/figures/toxicity.py": PAGE,
    "steerlab/report/page.py": REPORT,
    "steerlab/progress.py": {},
    "steerlab/job.py": {},
    "steerlab/experiment/registry.py": {},
    "scripts/score_toxicity.py": SCORED | PAGE,
}


@pytest.mark.parametrize("module", MODULES)
def test_a_changed_module_plans_exactly_the_jobs_that_run_it(finished: Path, tmp_path: Path, module: str):
    folder = copy_finished(finished, tmp_path / "changed")
    with open(folder / module, "a") as file:
        file.write("\nCHANGED = True\n")
    assert planned(folder) == MODULES[module]
