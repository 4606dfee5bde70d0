"""What a configuration asks for, cell by cell."""

import json
from pathlib import Path
from types import SimpleNamespace

import yaml

from steerlab import experiment
from steerlab.experiment import names
from steerlab.experiment.cells import PICK, Cell
from steerlab.experiment.scorers import CLASSIFIER
from tests.workflow.project import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
MODEL = "smollm2-135m-instruct"


def loaded(**changes: object) -> experiment.Experiment:
    return experiment.load(DEFAULT | changes)


def cell(x: experiment.Experiment, method: str, split: str = "test", *, task: str = "toxicity") -> Cell:
    return x.cells[MODEL, method, task, split]


def test_candidates_are_asked_on_dev_prompts_and_the_pick_on_test_prompts_beside_strength_1():
    x = loaded()
    candidates, picked = cell(x, "lm_steer", "dev"), cell(x, "lm_steer")
    given = DEFAULT["steers"]["lm_steer"]
    assert (list(candidates.steps), list(candidates.strengths)) == (given["steps"], given["strengths"])
    assert candidates.chosen_by is None
    assert (picked.steps, picked.strengths) == ((PICK,), (PICK, 1.0))
    assert picked.chosen_by == (MODEL, "lm_steer", "toxicity")


def test_a_control_and_a_variant_stand_beside_the_pick_of_what_they_come_from():
    x = loaded()
    for name in ("random_lm_steer", "lm_steer_30", "civil_and_positive"):
        assert cell(x, name).chosen_by == (MODEL, "lm_steer", "toxicity")
        assert cell(x, name).steps == (PICK,)
    assert cell(x, "civil_and_positive").strengths == tuple(DEFAULT["variants"]["civil_and_positive"]["strengths"])


def test_a_task_without_an_objective_has_no_dev_cells_and_no_choice():
    x = loaded()
    assert not [key for key in x.cells if key[2:] == ("sentiment", "dev")]
    steered = cell(x, "lm_steer", task="sentiment")
    own = DEFAULT["steers"]["lm_steer"]["by_task"]["sentiment"]
    assert (list(steered.steps), list(steered.strengths)) == (own["steps"], own["strengths"])
    assert steered.chosen_by is None


def test_variants_have_the_size_of_the_sweep_and_methods_that_of_the_run():
    x, sweep = loaded(), DEFAULT["run"]["sweep"]
    small = cell(x, "lm_steer_30")
    assert (list(small.seeds), small.prompts, small.samples) == (sweep["seeds"], sweep["prompts"], sweep["samples"])
    whole = cell(x, "lm_steer")
    assert list(whole.seeds) == DEFAULT["run"]["seeds"] and whole.prompts is None


def test_each_cell_has_the_unsteered_cell_that_it_is_compared_with():
    x = loaded()
    for model, _, task, split in x.cells:
        assert (model, "base", task, split) in x.cells


def test_each_weight_of_a_composition_meets_the_steer_of_its_task():
    """They pass through JSON whose keys are sorted, and the files of the steers come in the order of the plan."""
    x = loaded()
    for name in ("civil", "positive", "civil_and_negative"):
        w = {"model": MODEL, "method": name, "task": "toxicity", "seed": "0"}
        spec, files = json.loads(x.spec("derive_steer", w.items())), x.subjects(SimpleNamespace(**w))["steers"]
        assert spec["hyperparameters"]["weights"] == DEFAULT["variants"][name]["weights"]
        assert [Path(file).parent.name for file in files] == spec["of"]


def test_a_composition_with_sample_data_in_any_part_says_so():
    x = loaded(data={"sources": {"smollm2_135m_instruct": "wheel", "comments": "kaggle", "sentiment_texts": "sample"}})
    cell = {"model": MODEL, "method": "civil", "task": "toxicity", "split": "test"}
    assert json.loads(x.spec("compute_metrics", cell.items()))["data"] == "sample"
    cell["method"] = "lm_steer"
    assert json.loads(x.spec("compute_metrics", cell.items()))["data"] == "real"


def test_the_code_of_a_scorer_is_in_the_digest_of_the_rule_that_prepares_it():
    x = loaded()
    before = x.code("prepare_scorer", scorer="toxic_comment_classifier")
    assert before != x.code("prepare_scorer", scorer="distilbert_sst2") != x.code("prepare_scorer")


CELL = {"model": MODEL, "method": "lm_steer", "task": "toxicity", "split": "test"}


def judged_by(*toxicity: str, device: str = "cpu", threads: int = 2, **classifiers: dict):
    given = DEFAULT["scores"]["classifiers"] | classifiers
    scorers = {"toxicity": list(toxicity), "classifiers": given}
    return loaded(scores=DEFAULT["scores"] | scorers, device=device, threads=threads)


def test_a_job_asks_for_a_card_only_where_a_scorer_is_a_model():
    plain, judged = judged_by("profanity_check", device="cuda"), judged_by("detoxify_original", device="cuda")
    assert (plain.scoring("score_texts"), plain.scoring_threads("score_texts")) == ({}, 1)
    assert (judged.scoring("score_texts")["gpu"], judged.scoring_threads("score_texts")) == (1, 2)
    assert judged_by("detoxify_original").scoring("score_texts")["gpu"] == 0


def test_device_and_threads_rerun_the_scores_of_a_model_alone():
    for scorer, expected in (("profanity_check", True), ("detoxify_original", False)):
        for rule, wildcards in (("score_texts", CELL), ("score_official_generations", {})):
            specs = {judged_by(scorer, **where).spec(rule, wildcards.items()) for where in (
                {}, {"device": "cuda"}, {"threads": 4}
            )}  # fmt: skip
            assert (len(specs) == 1) is expected


def test_another_definition_of_a_classifier_prepares_and_scores_anew():
    first = DEFAULT["scores"]["classifiers"]["detoxify_original"]
    xs = [judged_by("detoxify_original", detoxify_original=first | more) for more in ({}, {"label": "insult"})]
    prepared = [json.loads(x.spec("prepare_scorer", {"scorer": "detoxify_original"}.items())) for x in xs]
    label = "unitary/toxic-bert==4d6c22e74ba2:{},sigmoid"
    assert prepared[0] == {"scorer": CLASSIFIER, "definition": first, "label": label.format("toxic")}
    other = {"definition": first | {"label": "insult"}, "label": label.format("insult")}
    assert prepared[1] == {"scorer": CLASSIFIER} | other
    assert len({x.spec("score_texts", CELL.items()) for x in xs}) == 2
    assert len({x.spec("prepare_scorer", {"scorer": "detoxify_unbiased"}.items()) for x in xs}) == 1


def test_a_classifier_in_place_of_another_scores_anew():
    specs = {judged_by(name).spec("score_texts", CELL.items()) for name in ("detoxify_original", "detoxify_unbiased")}
    assert len(specs) == 2
    x = judged_by("detoxify_original")
    assert names.SCORER.format(scorer="detoxify_original") in x.prepared_scorers("score_texts")
    assert x.code("score_texts") != judged_by("profanity_check").code("score_texts")


def test_a_classifier_from_a_folder_is_made_of_the_users_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    mine = {"path": str(tmp_path), "quantity": "toxicity", "label": "toxic"}
    x = judged_by("mine", mine=mine)
    assert x.scorer_source("mine") == [str(tmp_path / "config.json")]
    assert x.scorer_source("detoxify_original") == [] and x.scorer_source("vader") == []


def test_a_steer_without_held_out_texts_is_not_interpreted():
    given = DEFAULT["steers"]["lm_steer"] | {"held_out": 0.0}
    drawn = [
        loaded(steers=DEFAULT["steers"] | {"lm_steer": steer}).figures("lm_steer")
        for steer in (DEFAULT["steers"]["lm_steer"], given)
    ]
    missing = {Path(file).stem for file in drawn[0]} - {Path(file).stem for file in drawn[1]}
    assert missing == {"directions", "evidence", "spectrum"}


def test_a_variant_that_learns_what_the_method_learns_uses_its_steers():
    x = loaded()
    steer = names.STEER.format(model=MODEL, method="lm_steer", task="toxicity", seed=0)
    assert x.instance("lm_steer_all").trained_as == "lm_steer" and x.steers.count(steer) == 1
    assert not [path for path in x.steers if "lm_steer_all" in path]
    for name in ("lm_steer_30", "lm_steer_add", "lm_steer_full", "lm_steer_official", "civil", "transferred"):
        assert x.instance(name).trained_as == name


def test_strengths_of_a_variant_alone_ask_for_no_training():
    variants = DEFAULT["variants"] | {"stronger": {"of": "caa", "tasks": ["toxicity"], "strengths": [2.0]}}
    x = loaded(variants=variants, run=DEFAULT["run"] | {"variants": ["stronger"]})
    assert not [path for path in x.steers if "stronger" in path]
    assert cell(x, "stronger").strengths == (2.0,)


TWO_FOLDS = {
    "run": DEFAULT["run"]
    | {"methods": ["base", "instructed", "iti", "random_iti", "slim"], "variants": []}
    | {"tasks": ["truthfulness", "truthfulness_swapped", "nq_open"]},
    "tasks": DEFAULT["tasks"]
    | {"truthfulness": {"split": "halves", "seeds": [0, 2]}, "nq_open": {"methods": ["base", "instructed", "slim"]}},
}


def job(method: str, task: str, split: str = "test", seed: str = "0") -> SimpleNamespace:
    return SimpleNamespace(model=MODEL, method=method, task=task, split=split, seed=seed)


def test_a_swapped_task_has_the_settings_of_the_other_one_and_steers_of_its_own():
    x = loaded(**TWO_FOLDS)
    for split in ("dev", "test"):
        one, other = (cell(x, "iti", split, task=task) for task in ("truthfulness", "truthfulness_swapped"))
        assert (one.seeds, one.steps, one.strengths) == (other.seeds, other.steps, other.strengths)
    assert cell(x, "iti", task="truthfulness_swapped").chosen_by == (MODEL, "iti", "truthfulness_swapped")
    assert x.steer_input(job("iti", "truthfulness_swapped")) == [f"results/steers/{MODEL}/iti/truthfulness_swapped/0"]
    tables = [json.loads(x.spec("make_task_table", [("task", task)])) for task in TWO_FOLDS["run"]["tasks"][:2]]
    assert tables[1]["settings"].pop("swapped") and tables[0] == tables[1]


def test_questions_that_are_asked_alone_take_steers_and_picks_of_what_was_learnt_on():
    x = loaded(**TWO_FOLDS)
    assert not [key for key in x.cells if key[2:] == ("nq_open", "dev")]
    here = cell(x, "slim", task="nq_open")
    assert (here.seeds, here.steps, here.strengths) == ((0, 2), (PICK,), (PICK,))
    assert here.chosen_by == (MODEL, "slim", "truthfulness") and here.samples == 0
    assert x.steer_input(job("slim", "nq_open")) == [f"results/steers/{MODEL}/slim/truthfulness/0"]
    assert x.choice_input(job("slim", "nq_open")) == [f"results/choices/{MODEL}/slim/truthfulness.json"]
    assert (MODEL, "iti", "nq_open", "test") not in x.cells
    assert json.loads(x.spec("make_task_table", [("task", "nq_open")]))["settings"]["split"] == "test_only"


def test_of_questions_that_are_asked_alone_null_means_the_methods_of_what_was_learnt_on():
    tasks = TWO_FOLDS["tasks"] | {"nq_open": {"methods": None}}
    tasks |= {"truthfulness": {"split": "halves", "methods": ["base", "iti"]}}
    x = loaded(**TWO_FOLDS | {"tasks": tasks})
    assert {key[1] for key in x.cells if key[2] == "nq_open"} == {"base", "iti"}


def test_slims_hyperparameters_reach_its_fit():
    spec = json.loads(loaded().spec("train_steer", job("slim", "truthfulness").__dict__.items() - {("split", "test")}))
    given = DEFAULT["steers"]["slim"] | {"alpha": None, "bl": 1.0, "official_code": False}
    del given["by_task"]
    assert spec["hyperparameters"].items() >= given.items() and spec["site"] == "attention_heads"


def on_cards(device: str = "cuda", **changes: object) -> experiment.Experiment:
    """The default with a judge of perplexity of its own, and its model on two cards."""
    models = DEFAULT["models"] | {MODEL: DEFAULT["models"][MODEL] | {"cards": 2}}
    perplexity = {"judges": ["base", "smollm2-135m-rotated"]}
    return loaded(models=models, device=device, scores=DEFAULT["scores"] | {"perplexity": perplexity}, **changes)


def test_a_rule_asks_for_the_cards_of_the_model_that_it_runs_and_its_spec_says_so():
    x, one = on_cards(), loaded(device="cuda")
    assert x.gpu_of("generate_continuations", (CELL | {"seed": "0"}).items()) == 2
    for judge, cards in (("base", 2), ("smollm2-135m-rotated", 1)):
        w = CELL | {"judge": judge}
        assert x.gpu_of("score_perplexity", w.items()) == cards
        assert json.loads(x.spec("score_perplexity", w.items())).get("cards", 1) == cards
    of_coverage = {"model": MODEL, "method": "slim", "task": "truthfulness", "seed": "0"}
    parts = json.loads(x.spec("measure_coverage", of_coverage.items()))
    assert parts["fitted"]["cards"] == parts["test"]["cards"] == 2
    assert x.spec("score_texts", CELL.items()) == one.spec("score_texts", CELL.items())
    assert x.spec("prepare_model", {"model": MODEL}.items()) == one.spec("prepare_model", {"model": MODEL}.items())


def test_on_the_cpu_cards_mean_nothing():
    x, w = on_cards("cpu"), (CELL | {"seed": "0"}).items()
    assert x.gpu_of("generate_continuations", w) == 0
    assert x.spec("generate_continuations", w) == loaded(device="cpu").spec("generate_continuations", w)


def test_processes_that_train_a_reader_take_a_card_each_of_a_model_that_lies_on_several():
    w = {"model": MODEL, "setting": "visible", "seed": "0"}
    shared = on_cards(latentqa=DEFAULT.get("latentqa", {}) | {"processes": 2, "reader": {"accumulation": 2}})
    assert on_cards().gpu_of("train_reader", w.items()) == 2 and shared.gpu_of("train_reader", w.items()) == 1
    assert "cards" not in json.loads(shared.spec("train_reader", w.items()))
