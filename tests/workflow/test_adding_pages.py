"""docs/adding-a-model.md, -dataset.md and -scorer.md, followed word for word in copies of the project."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from steerlab.tiny_models import byte_tokenizer, tiny_config
from tests.workflow.project import ROOT, copy_finished, copy_project, environment, planned, snakemake
from tests.workflow.test_adding_a_method import insert

MINE = ("--configfile", "presets/tiny.yaml", "../mine.yaml")


def blocks(page: str) -> dict[str, list[str]]:
    """The code blocks of a page by their language."""
    found: dict[str, list[str]] = {}
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.S | re.M):
        found.setdefault(language, []).append(code)
    return found


def saved(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def overlay(folder: Path, code: str) -> None:
    """The overlay of a page, where its shell lines have it."""
    (folder.parent / "mine.yaml").write_text(code)


class TestModel:
    PAGE = blocks("adding-a-model.md")

    def test_the_entry_prepares_the_folder_and_plans_its_cells(self, tmp_path: Path):
        folder = copy_project(tmp_path / "project")
        torch.manual_seed(0)
        saved(AutoModelForCausalLM.from_config(tiny_config("gpt2", layers=2)), tmp_path / "my-model")
        (entry,) = self.PAGE["yaml"]
        overlay(folder, entry)
        snakemake(folder, "--cores", "1", *MINE, "--", "results/models/mine")
        assert (folder / "results/models/mine/model.safetensors").is_file()
        jobs = planned(folder, *MINE)
        assert "prepare_model" not in jobs and jobs["train_steer"] > 0 and jobs["build_report"] == 1

    def test_a_folder_of_another_tokenizer_is_refused(self, tmp_path: Path):
        folder = copy_project(tmp_path / "project")
        saved(AutoModelForCausalLM.from_config(tiny_config("gpt2", layers=2)), tmp_path / "my-model")
        (entry,) = self.PAGE["yaml"]
        overlay(folder, entry.replace("[72,", "[73,"))
        printed = snakemake(folder, "--cores", "1", *MINE, "--", "results/models/mine", expect=1)
        assert re.search("^prepare_model: .*'mine'.*'Hello'", printed, re.M), printed[-2000:]

    def test_a_family_that_is_added_by_two_lines_holds_the_tests_that_the_page_names(self, tmp_path: Path):
        folder = copy_project(tmp_path / "project")
        (folder / "tests").symlink_to(ROOT / "tests")
        (folder / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
        paths, shape = self.PAGE["python"]
        assert len(paths.splitlines()) == len(shape.splitlines()) == 1
        insert(folder / "steerlab/sites.py", '    "gpt2": Family(', paths)
        insert(folder / "steerlab/tiny_models.py", '    "gpt2": lambda', shape)
        asked = re.search(r'ARGS="(.*)"', self.PAGE["sh"][1])
        assert asked
        command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *asked[1].split()]
        result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
        passed = re.search(r"(\d+) passed", result.stdout)
        assert passed and int(passed[1]) > 40, result.stdout[-2000:]


class TestDataset:
    PAGE = blocks("adding-a-dataset.md")

    @pytest.fixture
    def followed(self, tmp_path: Path) -> Path:
        folder = copy_project(tmp_path / "project")
        (file,), (entry, settings), (loader,) = self.PAGE[""], self.PAGE["yaml"], self.PAGE["python"]
        (tmp_path / "my-data/forum").mkdir(parents=True)
        (tmp_path / "my-data/forum/openings.csv").write_text(file)
        with (folder / "steerlab/data/sources.yaml").open("a") as table:
            table.write("\n" + entry)
        insert(folder / "steerlab/data/loaders.py", "FORMATS: dict[", loader + "\n\n")
        insert(folder / "steerlab/data/loaders.py", "prompt_lines, rtp_jsonl,", "openings_csv, ")
        insert(folder / "schemas/config.yaml", "rtp_prompts, nontoxic_prompts,", "forum_openings, ")
        overlay(folder, settings)
        return folder

    def test_the_prompts_of_the_table_are_the_files(self, followed: Path):
        snakemake(followed, "--cores", "1", *MINE, "--", "results/data/toxicity.parquet")
        table = pd.read_parquet(followed / "results/data/toxicity.parquet")
        prompts = table[(table.role == "prompt") & (table.rendering == "plain")]
        openings = pd.read_csv(followed.parent / "my-data/forum/openings.csv").opening
        assert set(prompts.text) <= set(openings) and prompts.split.value_counts().to_dict() == {"dev": 2, "test": 2}
        assert planned(followed, *MINE)["generate_continuations"] > 0

    def test_another_file_under_its_name_is_refused(self, followed: Path):
        with (followed.parent / "my-data/forum/openings.csv").open("a") as file:
            file.write("work,One line more\n")
        target = "results/data/toxicity.parquet"
        printed = snakemake(followed, "--cores", "1", "--retries", "0", *MINE, "--", target, expect=1)
        assert re.search("^fetch_source: forum_openings/openings.csv .* not the pinned 510", printed, re.M)

    def test_an_entry_in_the_table_of_sources_reruns_nothing(self, finished: Path, tmp_path: Path):
        folder = copy_finished(finished, tmp_path / "added")
        with (folder / "steerlab/data/sources.yaml").open("a") as table:
            table.write("\n" + self.PAGE["yaml"][0])
        assert planned(folder) == {}


class TestScorer:
    PAGE = blocks("adding-a-scorer.md")

    def test_the_classifier_of_the_page_is_prepared_and_scores_the_cells(self, finished: Path, tmp_path: Path):
        folder = copy_finished(finished, tmp_path / "added")
        config = AutoConfig.for_model(
            "bert", vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            id2label={0: "civil", 1: "toxic"}, label2id={"civil": 0, "toxic": 1},
        )  # fmt: skip
        torch.manual_seed(0)
        saved(AutoModelForSequenceClassification.from_config(config), tmp_path / "my-classifier")
        overlay(folder, self.PAGE["yaml"][0])
        target = "results/scores/tiny-llama/base/toxicity/dev/texts.parquet"
        snakemake(folder, "--cores", "1", *MINE, "--", target)
        scores = pd.read_parquet(folder / target)
        assert (folder / "results/scorers/mine/model.safetensors").is_file()
        toxicity = scores[scores.quantity == "toxicity"]
        assert toxicity.scorer.nunique() == 2 and toxicity.score.between(0, 1).all()

    def test_a_scorer_added_by_the_page_stands_beside_the_first_one(self, finished: Path, tmp_path: Path):
        folder = copy_finished(finished, tmp_path / "added")
        file, line = self.PAGE["python"]
        assert len(line.splitlines()) == 1
        (folder / "steerlab/scores/negativity.py").write_text(file)
        insert(folder / "steerlab/experiment/registry.py", '    "vader": TextScorer(', line)
        assert planned(folder) == {}
        overlay(folder, self.PAGE["yaml"][1])
        jobs = planned(folder, *MINE)
        assert jobs["score_texts"] > 0 and jobs["compute_metrics"] > 0
        assert not {"fetch_source", "make_task_table", "prepare_model", "capture_activations"} & set(jobs)
        target = "results/metrics/tiny-llama/base/toxicity/dev.csv"
        snakemake(folder, "--cores", "1", *MINE, "--", target)
        metrics = pd.read_csv(folder / target)
        told = metrics[metrics.metric == "mean_toxicity"].scorer.unique()
        assert len(told) == 2 and any(name.startswith("vaderSentiment==") for name in told)
