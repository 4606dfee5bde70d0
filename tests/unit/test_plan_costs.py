"""What a plan costs: counts, rates that are fitted to runs, disk, and prompts for an interval of a given width."""

import functools
import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from steerlab import cli, experiment
from steerlab.experiment import cells, costs, disk, names, plan, rates, work
from steerlab.metrics import bootstrap, pilot
from tests.workflow.project import ROOT

MODEL = "smollm2-135m-instruct"


@functools.cache
def of_preset(*presets: str) -> experiment.Experiment:
    return cli._experiment([ROOT / "presets" / f"{preset}.yaml" for preset in presets])


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def job(rule: str, **wildcards: object) -> work.Job:
    return work.Job(rule, {name: str(value) for name, value in wildcards.items()})


def jobs_of_cells(x: experiment.Experiment) -> list[work.Job]:
    """The generating and scoring jobs of every cell that has texts."""
    found = []
    for cell in x.cells.values():
        if cell.samples:
            at = {"model": cell.model, "method": cell.method, "task": cell.task, "split": cell.split}
            found += [job("generate_continuations", **at, seed=seed) for seed in cell.seeds]
            found += [job("score_perplexity", **at, judge="base"), job("score_texts", **at)]
    return found


# ---- jobs and tokens ----


def test_a_summary_of_files_gives_each_job_once_with_its_wildcards():
    lines = ["output_file\tdate\trule\tlog-file(s)\tstatus\tplan"]
    of_figure = [f"results/figures/m/toxicity.{end}" for end in ("svg", "pdf", "csv", "rst")]
    lines += [f"{file}\t-\tplot_figure\t-\tmissing\tupdate" for file in of_figure]
    made = names.ACTIVATIONS.format(model="m", task="t", part="test", site="block_output", positions="last")
    lines += [f"{made}\t-\tcapture_activations\t-\tmissing\tupdate", "Building DAG of jobs..."]
    where = {"model": "m", "task": "t", "part": "test", "site": "block_output", "positions": "last"}
    assert work.jobs("\n".join(lines)) == [job("plot_figure"), job("capture_activations", **where)]


def test_the_new_tokens_of_generating_are_those_that_the_cells_ask_for():
    x = of_preset()
    told = [work.of_job(x, each) for each in jobs_of_cells(x) if each.rule == "generate_continuations"]
    assert sum(each.tokens["new"] for each in told) == sum(cell.tokens for cell in plan.counted(x.config))


def test_tokens_grow_with_the_model_and_the_start_does_not():
    x = of_preset("paper-hpr")
    done = work.Work({"start": 1, "read": 10}, "llama3-8b-instruct")
    grown = work.scaled(x.config, done)
    assert grown["start"] == 1 and grown["read"] == pytest.approx(10 * 8030.3 / 134.5)


def test_every_model_of_the_presets_has_a_size():
    for path in (ROOT / "presets").glob("*.yaml"):
        config = of_preset(*[each.stem for each in plan.with_base(path)]).config
        for model in {cell.model for cell in cells.by_key(config).values()}:
            assert work.size_of(config, model), f"{path.stem}: {model}"


def test_a_model_of_unknown_size_is_named_and_its_work_is_left_out():
    x = of_preset()
    unknown = {MODEL: {"kind": "hub", "repo": "somebody/else", "revision": "0" * 40}}
    x = experiment.Experiment(x.config | {"models": x.config["models"] | unknown}, x.doors)
    cost = costs.of_jobs(x, jobs_of_cells(x), rates.shipped("cpu"))
    assert cost.unknown == (MODEL, "smollm2-135m-rotated")
    assert f"NOT COUNTED: the work of {MODEL}" in costs.table(x, cost, at_once=2, told="here")


# ---- rates ----


def test_each_unit_of_the_default_has_a_measured_rate_and_each_rate_on_cards_says_that_it_has_none():
    x = of_preset()
    asked = {unit for each in jobs_of_cells(x) for unit in work.of_job(x, each).units}
    assert asked <= rates.shipped("cpu").keys()
    assert rates.told("cuda").startswith("NOT MEASURED")
    assert rates.shipped("cuda", "float32")["read"] > rates.shipped("cuda", "bfloat16")["read"]


def test_rates_are_recovered_from_the_jobs_of_a_run():
    x = of_preset("many-prompts")
    true = {"start": 3.0, "load": 4.0, "read": 0.002, "decode": 0.006, "score_texts": 2.0}
    rng = np.random.default_rng(0)
    runs = []
    for each in jobs_of_cells(x):
        at = rates.seconds(work.scaled(x.config, work.of_job(x, each)), true)
        runs.append(rates.Run(each, at * rng.lognormal(0, 0.1), "cpu"))
    found = rates.fitted(x, runs, {"capture": 0.5})
    together = found["start"] + found["load"]  # no job has one without the other here
    assert together == pytest.approx(7, rel=0.15) and found["decode"] == pytest.approx(0.006, rel=0.15)
    assert found["read"] == pytest.approx(0.002, rel=0.15) and found["capture"] == 0.5


def test_jobs_of_another_configuration_are_passed_over():
    x = of_preset("many-prompts")
    at = {"model": MODEL, "task": "toxicity", "split": "test"}
    there, gone = (rates.Run(job("score_texts", **at, method=name), 2.0, "cpu") for name in ("base", "hpr"))
    assert rates.compared(x, [there, gone], rates.shipped("cpu"))["score_texts"][0] == 1


def test_a_folder_without_a_report_has_no_rates_to_give(tmp_path):
    with pytest.raises(ValueError, match="end the run first"):
        rates.of_run(tmp_path)


def test_a_run_tells_its_configuration_and_its_jobs(tmp_path):
    x = of_preset("many-prompts")
    each = jobs_of_cells(x)[0]
    folder = tmp_path / "report"
    folder.mkdir()
    about = {"rule": "build_report", "wildcards": {}, "seconds": 2.0, "device": "cpu", "spec": {"config": x.config}}
    (folder / "index.html.run.json").write_text(json.dumps(about))
    of_job = {"rule": each.rule, "wildcards": dict(each.wildcards), "seconds": 9.0, "device": "cpu"}
    (tmp_path / "0.parquet.run.json").write_text(json.dumps(of_job))
    config, runs = rates.of_run(tmp_path)
    assert experiment.load(config).config == x.config
    assert {(run.job.rule, run.seconds) for run in runs} == {(each.rule, 9.0), ("build_report", 2.0)}


# ---- disk and services ----


def test_activations_take_the_bytes_of_their_states():
    x = of_preset()
    at = {"model": MODEL, "task": "toxicity", "part": "fitted", "positions": "last"}
    told = disk.of_job(x, job("capture_activations", **at, site="block_output"))
    assert told["store, activations"] == pytest.approx(852 * 30 * 576 * 4, rel=0.01)


def test_a_service_takes_its_quota_of_hours():
    x = of_preset("perspective")
    at = {"model": MODEL, "method": "base", "task": "toxicity", "split": "test", "service": "perspective"}
    texts, seconds = costs.of_jobs(x, [job("score_texts_by_service", **at)], rates.shipped("cpu")).services[
        "perspective"
    ]
    assert texts == 3 * 36 * 4 and seconds == pytest.approx(texts / 0.97)


# ---- prompts for an interval ----


def test_the_prompts_that_a_pilot_tells_give_the_wanted_width():
    rng = np.random.default_rng(0)

    def width(n: int) -> float:
        found = bootstrap.mean_difference(rng.normal(0.1, 1, n), rng.normal(0, 1, n), resamples=400)
        return found.high - found.low

    wanted, told = 0.25, [pilot.needed(60, width(60), 0.25) for _ in range(20)]
    assert np.mean([width(n) for n in told]) == pytest.approx(wanted, rel=0.05)
    assert np.mean(told) == pytest.approx((2 * 1.96 * math.sqrt(2) / wanted) ** 2, rel=0.2)


@pytest.mark.parametrize(("n", "wanted"), [(1, 0.1), (20, 0.0), (20, -1.0)])
def test_a_pilot_without_spread_or_a_width_that_is_none_is_refused(n, wanted):
    with pytest.raises(ValueError, match="pilot: "):
        pilot.needed(n, 0.2, wanted)


def test_a_pilot_looks_at_the_widest_interval_of_all_seeds_together():
    row = {
        "model": "m",
        "method": "caa",
        "task": "toxicity",
        "split": "test",
        "prompts": "all",
        "metric": "mean_toxicity",
    }
    row |= {"scorer": "s", "n": 36, "low": 0.0, "difference_low": math.nan, "difference_high": math.nan}
    rows = [
        row | {"seed": "all", "strength": 0.5, "high": 0.1},
        row | {"seed": "all", "strength": 1.0, "high": 0.2},
        row | {"seed": "0", "strength": 1.0, "high": 0.9},
        row | {"seed": "all", "strength": 1.0, "high": 0.8, "scorer": "s, calibrated"},
        row | {"seed": "all", "strength": 1.0, "high": 0.8, "metric": "perplexity"},
    ]
    (found,) = pilot.table(pd.DataFrame(rows), 0.1, {"toxicity": ["mean_toxicity"]}).to_dict("records")
    assert (found["value_width"], found["value_needed"], found["value_times"]) == (0.2, 144, 4)
    assert math.isnan(found["difference_needed"])


def test_rules_with_a_rate_are_rules_of_the_workflow():
    told = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    table = yaml.safe_load((ROOT / "steerlab/experiment/rates.yaml").read_text())["rates"]["cpu"]["seconds"]
    units = {*work.BODY, *work.HEAD, *work.STATES, "start", rates.OTHER}
    assert [name for name in table if name not in units and f"rule {name}:" not in told] == []
