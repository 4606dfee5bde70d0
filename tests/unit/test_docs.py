"""The pages of docs/: the Python of docs/lm-steer.md runs as it stands there, and what pages name is there."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
import torch

from steerlab import activations, models
from steerlab.experiment import config
from steerlab.experiment.registry import FIGURES
from steerlab.methods.lm_steer import LMSteer
from steerlab.models import ModelHandle
from tests.workflow.project import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
MODEL, ROTATED = "smollm2-135m-instruct", "smollm2-135m-rotated"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page names in results/."""
    folder = tmp_path_factory.mktemp("docs")
    there, rotated = folder / "results/models" / MODEL, folder / "results/models" / ROTATED
    models.prepare({"kind": "random", "family": "llama", "layers": 2, "seed": 0}, there, name=MODEL)
    models.prepare({"kind": "rotated", "of": MODEL, "seed": 0}, rotated, name=ROTATED, source=there)
    model = ModelHandle(there)
    texts = pd.DataFrame({"id": ["a", "b"], "text": ["how kind", "you fool"], "label": [1.0, -1.0]})
    rows = activations.select(model.info.tokenizer, list(texts.text), "all")
    states = activations.capture(model, rows, "lm_head_input", folder=folder / ".store", batch_rows=2, shard_rows=2)
    for task in ("toxicity", "sentiment"):
        steer = LMSteer.fit(model, texts, states, seed=0, steps=[1, 80], held_out=0.0, batch_texts=2)
        steer.save(folder / f"results/steers/{MODEL}/lm_steer/{task}/0")
    return folder


def test_the_python_of_the_page_on_lm_steer_runs(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(finished)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/lm-steer.md").read_text(), flags=re.M | re.S)
    assert len(blocks) == 5
    page: dict = {}
    for block in blocks:
        exec(block, page)
    assert len(page["steered"]) == len(page["dummy"]) == len(page["elsewhere"]) == 3
    assert set(page["words"].side) == {"largest", "smallest"}
    assert page["both"].number_of_steers == 4 and page["own"].steps == 20
    assert LMSteer.load(Path("results/own/steer"), steps=10).steps == 10
    # Rotated coordinates are the same function: the steer that was moved there says the same.
    with torch.no_grad(), page["civil"].attached(page["model"].load(), 0.7):
        here = page["model"].load()(torch.arange(8)[None]).logits
    with torch.no_grad(), page["moved"].attached(page["target"].load(), 0.7):
        there = page["target"].load()(torch.arange(8)[None]).logits
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in PAGES)])
def test_what_a_page_links_to_is_there(page: str):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (ROOT / page).read_text()):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that a git host gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/lm-steer.md", "docs/troubleshooting.md", "docs/performance.md", "docs/running-at-scale.md"],
)
def test_the_presets_that_a_page_names_are_there(page: str):
    for preset in re.findall(r"presets/[\w.-]+\.yaml", (ROOT / page).read_text()):
        assert (ROOT / preset).exists(), preset


METHODS = {name: name.replace("_", "-") for name in ("lm_steer", "hpr", "slim", "cogsteer", "latentqa")}
SECTIONS = {"eye_tracking": "cogsteer", "glue": "cogsteer"}
SECTIONS |= dict.fromkeys(("latent_reading", "latentqa", "relations", "system_prompts"), "latentqa")
STEERS = METHODS | dict.fromkeys(("caa", "iti", "lora"), "baselines")


def lacking(page: str, names: Iterable[str]) -> list[str]:
    text = (ROOT / f"docs/{page}.md").read_text()
    return [name for name in names if not re.search(rf"\b{name}\b", text)]


def test_the_page_of_a_method_names_every_key_of_its_configuration():
    known = config.schema()["properties"]
    assert set(known["steers"]["properties"]) == set(STEERS)
    for name, page in STEERS.items():
        assert lacking(page, known["steers"]["properties"][name]["properties"]) == [], name
    for name, page in SECTIONS.items():
        assert lacking(page, known[name]["properties"]) == [], name
    assert lacking("latentqa", known["latentqa"]["properties"]["reader"]["properties"]) == []


def test_the_page_of_a_method_names_every_figure_of_its_paper():
    for method, page in METHODS.items():
        assert lacking(page, [name for name, line in FIGURES.items() if line.group == method]) == [], method
