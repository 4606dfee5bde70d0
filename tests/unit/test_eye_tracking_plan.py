"""What a configuration asks of eye movements: which corpora, by which doors, for which models, and what is said."""

import json
from types import SimpleNamespace

import pytest
import yaml

from steerlab import experiment
from steerlab.experiment import ConfigError, names
from tests.workflow.project import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
MODEL = "smollm2-135m-instruct"
FIGURE = f"results/figures/{MODEL}/eye_tracking.svg"


def loaded(corpora: list[str], **doors: str) -> experiment.Experiment:
    own = {name: door for name, door in DEFAULT["data"]["sources"].items() if name not in ("provo", "zuco_nr")}
    return experiment.load(DEFAULT | {"eye_tracking": {"corpora": corpora}, "data": {"sources": own | doors}})


def test_the_corpora_named_are_the_ones_that_are_fetched_and_their_table_is_made():
    x = loaded(["provo"], provo="sample")
    assert "eye_tracking" in x.tasks
    assert x.task_sources("eye_tracking") == {"provo": "results/data/raw/provo/sample"}
    spec = json.loads(x.spec("make_task_table", [("task", "eye_tracking")]))
    assert spec == {
        "module": "steerlab.tasks.eye_tracking",
        "doors": {"provo": "sample"},
        "settings": {"corpora": ["provo"], "sentences": None},
    }


def test_without_corpora_nothing_is_measured():
    x = loaded([])
    assert "eye_tracking" not in x.tasks and FIGURE not in x.figures() and not {"provo", "geco"} & set(x.doors)


def test_the_figure_is_drawn_of_the_curves_and_the_choice_of_each_model():
    x = loaded(["provo"], provo="sample")
    assert x.figures("cogsteer").count(FIGURE) == 1
    found = x.figure_input(SimpleNamespace(model=MODEL, figure="eye_tracking"))
    assert found == {
        "curves": [names.EYE_TRACKING.format(model=MODEL)],
        "reading": [names.READING_CHOICE.format(model=MODEL)],
    }


def sample_data(x: experiment.Experiment) -> str:
    return json.loads(x.spec("plot_figure", [("model", MODEL), ("figure", "eye_tracking")]))["sample_data"]


def test_the_caption_is_told_which_corpora_are_synthetic(tmp_path):
    assert sample_data(loaded(["provo", "zuco_nr"], provo="sample", zuco_nr="sample")) == "a synthetic sample"
    (tmp_path / "eye_tracking").mkdir()
    (tmp_path / "eye_tracking" / "zuco_tsr.json").touch()
    own = {name: door for name, door in DEFAULT["data"]["sources"].items() if name != "zuco_nr"}
    data = {"mirror": str(tmp_path), "sources": own | {"zuco_tsr": "mirror"}}
    both = experiment.load(DEFAULT | {"eye_tracking": {"corpora": ["provo", "zuco_tsr"]}, "data": data})
    assert sample_data(both) == "a synthetic sample in place of provo"
    real = experiment.load(DEFAULT | {"eye_tracking": {"corpora": ["zuco_tsr"]}, "data": data})
    assert sample_data(real) == ""


@pytest.mark.parametrize(
    ("corpora", "said"),
    [
        (["zuco"], "eye_tracking.corpora: no corpus of eye_tracking 'zuco'; did you mean 'zuco_nr'?"),
        (["truthfulqa"], "eye_tracking.corpora: no corpus of eye_tracking 'truthfulqa'"),
        (["geco"], "geco comes from a mirror, but data.mirror names no folder"),
    ],
)
def test_what_is_no_corpus_or_cannot_be_had_is_told(corpora, said):
    with pytest.raises(ConfigError) as error:
        loaded(corpora)
    assert said in str(error.value)
