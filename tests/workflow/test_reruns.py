"""What reruns after a change, and what does not: the rules that a dry-run plans on a finished run."""

import os
import re
from pathlib import Path

import pytest
import yaml

from steerlab.experiment import config
from tests.workflow.project import copy_finished, planned

# The rules of the tiny preset whose jobs a change plans, each block with what it leads to.
REPORT = {"build_report"}  # it prints the whole configuration
PAGE = {"plot_figure"} | REPORT
CELLS = {"generate_continuations", "score_texts", "score_perplexity", "compute_metrics"} | PAGE
READ = {"interpret_steer"} | PAGE
PICK = {"choose_settings", "derive_steer"} | CELLS | READ  # what follows from dev metrics of LM-Steer
LM_STEER = {"train_steer"} | PICK
CAA = {"train_steer", "choose_settings"} | CELLS
COMPUTE = {"capture_activations"} | LM_STEER
FROM_TABLE = {"make_task_table"} | COMPUTE
FROM_MODEL = {"prepare_model"} | COMPUTE
SENTIMENT = {"make_task_table", "capture_activations", "train_steer", "derive_steer"} | CELLS
WITH_INSTRUCTED = ["base", "lm_steer", "random_lm_steer", "caa", "instructed"]
WITH_100 = ["lm_steer_30", "civil_and_positive", "transferred", "lm_steer_100"]

# Each leaf of the schema: another value, and the rules that a dry-run then plans.
LEAVES = {
    "device": ("cuda", COMPUTE),
    "dtype": ("bfloat16", COMPUTE),
    "attention": ("eager", COMPUTE),
    "threads": (2, COMPUTE),
    "mem_mb": (5000, REPORT),
    "runtime": (30, REPORT),
    "store": ("elsewhere", REPORT),
    "run.models": (["tiny-llama", "tiny-gpt2"], FROM_MODEL),
    "run.methods": (WITH_INSTRUCTED, CELLS),
    "run.tasks": None,  # the variants need both
    "run.seeds": ([0, 1, 2], LM_STEER),
    "run.variants": (WITH_100, {"train_steer"} | CELLS),
    "run.sweep.seeds": ([1], {"train_steer", "derive_steer"} | CELLS),
    "run.sweep.prompts": (2, CELLS),
    "run.sweep.samples": (2, CELLS),
    "data.door": ("mirror", None),
    "data.mirror": (".", REPORT),
    "data.sources": ({"comments": "mirror"}, None),
    "models": ({"tiny-llama": {"seed": 1}}, FROM_MODEL),
    "tasks.toxicity.source": ("nontoxic_prompts", {"fetch_source"} | FROM_TABLE),
    "tasks.toxicity.seeds": ([0], PICK),
    "tasks.toxicity.methods": (["base", "lm_steer", "random_lm_steer"], PAGE),
    "tasks.toxicity.prompts.dev": (5, FROM_TABLE),
    "tasks.toxicity.prompts.test": (5, FROM_TABLE),
    "tasks.toxicity.comments": (11, FROM_TABLE),
    "tasks.toxicity.wording": ("Be kind. {text}", FROM_TABLE),
    "tasks.sentiment.source": ("sentiment_prompts", REPORT),
    "tasks.sentiment.seeds": ([0, 1], {"train_steer"} | CELLS),
    "tasks.sentiment.methods": (["base", "lm_steer", "caa"], {"capture_activations", "train_steer"} | CELLS),
    "tasks.sentiment.prompts.test": (3, SENTIMENT),
    "tasks.sentiment.texts": (20, SENTIMENT),
    "tasks.sentiment.wording": ("Be glad. {text}", SENTIMENT),
    "activations.batch_rows": (3, COMPUTE),
    "activations.shard_rows": (7, COMPUTE),
    "steers.lm_steer.adaptor": None,  # only multiply can be interpreted and transferred
    "steers.lm_steer.rank": (3, LM_STEER),
    "steers.lm_steer.eps": (0.002, LM_STEER),
    "steers.lm_steer.init": (0.02, LM_STEER),
    "steers.lm_steer.values": ([4.0, 1.0], LM_STEER),
    "steers.lm_steer.steps": ([2, 3], LM_STEER),
    "steers.lm_steer.batch_texts": (3, LM_STEER),
    "steers.lm_steer.max_tokens": (20, LM_STEER),
    "steers.lm_steer.learning_rate": (0.02, LM_STEER),
    "steers.lm_steer.regularization": (0.1, LM_STEER),
    "steers.lm_steer.texts": (10, LM_STEER),
    "steers.lm_steer.held_out": (0.3, LM_STEER),
    "steers.lm_steer.official_code": (True, LM_STEER),
    "steers.lm_steer.strengths": ([0.5], PICK),
    "steers.lm_steer.by_task": ({"sentiment": {"strengths": [-1.0, 0.5]}}, CELLS),
    "steers.caa.layer": (1, CAA),
    "steers.caa.multiplier": (2.0, CAA),
    "steers.caa.held_out": (0.3, CAA),
    "steers.caa.strengths": ([1.0], {"choose_settings"} | CELLS),
    "variants": ({"lm_steer_30": {"texts": 4}}, {"train_steer"} | CELLS),
    "choices.perplexity_limit": (2.0, PICK),
    "generations.toxicity.samples.dev": (2, PICK),
    "generations.toxicity.samples.test": (3, CELLS),
    "generations.toxicity.max_new_tokens": (7, PICK),
    "generations.toxicity.min_new_tokens": (5, PICK),
    "generations.toxicity.temperature": (0.9, PICK),
    "generations.toxicity.top_p": (0.8, PICK),
    "generations.toxicity.batch_rows": (6, PICK),
    "generations.sentiment.samples.test": (2, CELLS),
    "generations.sentiment.max_new_tokens": (7, CELLS),
    "generations.sentiment.min_new_tokens": (5, CELLS),
    "generations.sentiment.temperature": (0.9, CELLS),
    "generations.sentiment.top_p": (0.8, CELLS),
    "generations.sentiment.batch_rows": (6, CELLS),
    "scores.toxicity": (["profanity_check", "toxic_comment_classifier"], {"fetch_source", "prepare_scorer"} | PICK),
    "scores.sentiment": None,  # there is one
    "scores.perplexity.judges": (["base", "tiny-gpt2"], {"prepare_model"} | PICK),
    "scores.perplexity.tokens_a_batch": (128, PICK),
    "analyses.interpretation.directions": (2, READ),
    "analyses.interpretation.words": (3, READ),
    "analyses.interpretation.value": (4.0, READ),
    "analyses.interpretation.texts": (3, READ),
    "metrics.resamples": (60, PICK),
    "metrics.confidence": (0.9, PICK),
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
    assert set(planned(finished, *arguments)) == jobs


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
    "steerlab/activations.py": COMPUTE,
    "steerlab/methods/caa.py": CAA,
    "steerlab/methods/lm_steer.py": LM_STEER,
    "steerlab/methods/random_direction.py": {"derive_steer"} | CELLS,
    "steerlab/generations.py": PICK,
    "steerlab/choices.py": PICK,
    "steerlab/scores/perplexity.py": PICK,
    "steerlab/scores/likelihood.py": PICK,
    "steerlab/scores/profanity_check.py": PICK,
    "steerlab/tasks/toxicity.py": FROM_TABLE,
    "steerlab/tasks/sentiment.py": SENTIMENT,
    "steerlab/metrics/bootstrap.py": PICK,
    "steerlab/analyses/interpretation.py": READ,
    "steerlab/figures/toxicity.py": PAGE,
    "steerlab/report/page.py": REPORT,
    "steerlab/progress.py": set(),
    "steerlab/job.py": set(),
    "steerlab/experiment/registry.py": set(),
    "scripts/score_texts.py": PICK,
}


@pytest.mark.parametrize("module", MODULES)
def test_a_changed_module_plans_exactly_the_jobs_that_run_it(finished: Path, tmp_path: Path, module: str):
    folder = copy_finished(finished, tmp_path / "changed")
    with open(folder / module, "a") as file:
        file.write("\nCHANGED = True\n")
    assert set(planned(folder)) == MODULES[module]
