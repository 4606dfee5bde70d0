"""Text-classification models as scorers: against transformers' own pipeline, and what `prepare` takes and refuses."""

import itertools
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

from scripts import prepare_scorer
from steerlab import experiment, scores
from steerlab.experiment import lookups
from steerlab.experiment.scorers import CLASSIFIER
from steerlab.scores import ScorerError
from steerlab.tiny_models import byte_tokenizer
from tests.unit.web import COMMIT, Web
from tests.workflow.project import ROOT

WORDS = [f"w{number}" for number in range(40)]
POSITIONS = 32
SHAPES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
}
LABELS = ("toxic", "insult", "threat")
TOXIC = {"quantity": "toxicity", "label": "toxic"}
SENTIMENT = {"quantity": "sentiment", "label": "POSITIVE", "against": "NEGATIVE"}


def a_tokenizer(limit: int) -> PreTrainedTokenizerFast:
    """One token a word, <s> before and </s> behind; the pad is number 1, as RoBERTa's."""
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=limit, model_input_names=["input_ids", "attention_mask"], **names
    )


def a_classifier(
    folder: Path, family: str = "bert", labels: tuple[str, ...] = LABELS, *, limit: int = POSITIONS, **more: object
) -> Path:
    """A tiny random classifier, saved as real ones are."""
    settings = {
        "vocab_size": 4 + len(WORDS), "pad_token_id": 1, "max_position_embeddings": POSITIONS,
        "id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)},
        "initializer_range": 0.5, "init_std": 0.5,
    }  # fmt: skip
    if family == "xlnet":
        del settings["max_position_embeddings"]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings | SHAPES[family] | more)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    a_tokenizer(limit).save_pretrained(folder)
    return folder


def prepared(path: Path, folder: Path, **definition: object) -> Path:
    spec = {"scorer": CLASSIFIER, "definition": TOXIC | {"path": str(path)} | definition}
    prepare_scorer.run(source=sorted(path.glob("*")), folder=folder, spec=spec)
    return folder


def some_texts(lengths: range = range(1, 25)) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, size=size)) for size in lengths]


def by_pipeline(saved: Path, texts: list[str], label: str, **how: object) -> list[float]:
    """The pipeline's score of a label, one text at a time."""
    pipe = pipeline("text-classification", model=str(saved), top_k=None, device="cpu", **how)
    return [next(one["score"] for one in labelled if one["label"] == label) for labelled in pipe(texts)]


def record(folder: Path) -> dict:
    return json.loads((folder / "scorer.json").read_text())


class TestScores:
    @pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
    @pytest.mark.parametrize(
        ("labels", "problem_type"),
        [
            (LABELS, None),
            (LABELS, "multi_label_classification"),
            (LABELS, "single_label_classification"),
            (("toxic",), None),
        ],
    )
    def test_auto_gives_what_the_pipeline_of_transformers_gives(self, tmp_path, family, labels, problem_type):
        saved = a_classifier(tmp_path / "saved", family, labels, problem_type=problem_type)
        found = scores.load(CLASSIFIER, prepared(saved, tmp_path / "new")).score(some_texts())
        assert found == pytest.approx(by_pipeline(saved, some_texts(), "toxic"), abs=1e-5)
        assert found.dtype == np.float64 and 0 <= found.min() < found.max() <= 1

    @pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
    def test_a_named_activation_is_the_pipelines_function_of_that_name(self, tmp_path, activation):
        other = {"sigmoid": "single_label_classification", "softmax": "multi_label_classification"}[activation]
        saved = a_classifier(tmp_path / "saved", "roberta", problem_type=other)
        folder = prepared(saved, tmp_path / "new", label="insult", activation=activation)
        expected = by_pipeline(saved, some_texts(), "insult", function_to_apply=activation)
        assert scores.load(CLASSIFIER, folder).score(some_texts()) == pytest.approx(expected, abs=1e-5)
        assert record(folder)["activation"] == activation

    def test_sentiment_is_the_difference_of_two_probabilities(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", "distilbert", ("NEGATIVE", "POSITIVE"))
        judge = scores.load(CLASSIFIER, prepared(saved, tmp_path / "new", **SENTIMENT))
        sides = [by_pipeline(saved, some_texts(), label) for label in ("POSITIVE", "NEGATIVE")]
        found = judge.score(some_texts())
        assert judge.quantity == "sentiment" and found == pytest.approx(np.subtract(*sides), abs=1e-5)
        assert -1 <= found.min() < 0 and np.ptp(found) > 0.01

    @pytest.mark.parametrize("family", SHAPES)
    def test_the_batch_moves_no_score(self, tmp_path, family, monkeypatch):
        judge = scores.load(CLASSIFIER, prepared(a_classifier(tmp_path / "saved", family), tmp_path / "new"))
        texts = [*some_texts(), *reversed(some_texts(range(3, 30, 4)))]
        alone = np.concatenate([judge.score([text]) for text in texts])
        assert judge.score(texts) == pytest.approx(alone, abs=1e-5) and np.ptp(alone) > 0.01
        monkeypatch.setattr(judge, "_tokens", min(judge._tokens, 40))
        assert judge.score(texts) == pytest.approx(alone, abs=1e-5)

    @pytest.mark.parametrize(
        ("family", "pad", "together"),
        [("bert", 1, True), ("gpt2", 1, True), ("gpt2", None, False), ("xlnet", 1, False)],
    )
    def test_a_model_whose_scores_pads_would_move_reads_one_text_at_a_time(self, tmp_path, family, pad, together):
        saved = a_classifier(tmp_path / "saved", family, pad_token_id=pad)
        folder = prepared(saved, tmp_path / "new")
        assert record(folder)["together"] is together
        texts = some_texts()
        found = scores.load(CLASSIFIER, folder).score(texts)
        assert found == pytest.approx(by_pipeline(saved, texts, "toxic"), abs=1e-5)

    @pytest.mark.parametrize(
        ("family", "limit", "read"),
        [("bert", 10**30, POSITIONS), ("roberta", 10**30, POSITIONS - 2), ("bert", 20, 20), ("roberta", 512, 30)],
    )
    def test_a_long_text_is_cut_at_the_smaller_limit_of_model_and_tokenizer(self, tmp_path, family, limit, read):
        saved = a_classifier(tmp_path / "saved", family, limit=limit)
        judge = scores.load(CLASSIFIER, prepared(saved, tmp_path / "new"))
        words = some_texts(range(100, 101))[0].split()
        whole, kept, shorter = (" ".join(words[:size]) for size in (100, read - 2, read - 3))
        found = judge.score([whole, kept, shorter])
        assert found[0] == pytest.approx(found[1], abs=1e-5) and abs(found[0] - found[2]) > 1e-5
        cut = {"truncation": True, "max_length": read}
        assert found[0] == pytest.approx(by_pipeline(saved, [whole], "toxic", **cut)[0], abs=1e-5)

    def test_a_model_without_any_limit_reads_whole_texts(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", "xlnet", limit=10**30)
        texts = some_texts(range(200, 202))
        found = scores.load(CLASSIFIER, prepared(saved, tmp_path / "new")).score(texts)
        assert found == pytest.approx(by_pipeline(saved, texts, "toxic"), abs=1e-5)

    def test_no_texts_give_no_scores_and_a_text_without_a_token_has_none(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", vocab_size=257, pad_token_id=256, max_position_embeddings=256)
        byte_tokenizer().save_pretrained(saved)
        judge = scores.load(CLASSIFIER, prepared(saved, tmp_path / "new"))
        assert judge.score([]).shape == (0,)
        assert np.isnan(judge.score(["", "a", ""])).tolist() == [True, False, True]


class TestPrepare:
    @pytest.mark.parametrize(("asked", "number"), [("Toxic", 0), ("toxic", 0), ("TOXIC", 0), ("INSULT", 2)])
    def test_a_label_is_found_in_whatever_case(self, tmp_path, asked, number):
        saved = a_classifier(tmp_path / "saved", labels=("Toxic", "non_toxic", "insult"))
        assert record(prepared(saved, tmp_path / "new", label=asked))["numbers"] == [number]

    def test_a_label_written_exactly_wins_over_one_in_another_case(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", labels=("TOXIC", "toxic"))
        assert record(prepared(saved, tmp_path / "new"))["numbers"] == [1]

    def test_the_record_says_what_the_scorer_is(self, tmp_path):
        found = record(prepared(a_classifier(tmp_path / "mine"), tmp_path / "new"))
        assert (found["name"], found["quantity"], found["labels"]) == ("mine", "toxicity", list(LABELS))
        assert re.fullmatch(r"[0-9a-f]{12}:toxic", found["version"]) and found["activation"] == "softmax"

    def test_the_version_of_a_folder_changes_with_its_weights_alone(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        before = record(prepared(saved, tmp_path / "one"))["version"]
        (saved / "README.md").write_text("no part of the model")
        assert record(prepared(saved, tmp_path / "two"))["version"] == before
        weights = load_file(saved / "model.safetensors")
        save_file({key: 2 * tensor for key, tensor in weights.items()}, saved / "model.safetensors", {"format": "pt"})
        assert record(prepared(saved, tmp_path / "three"))["version"] != before

    def test_pickled_weights_become_safetensors_with_the_same_scores(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", "roberta")
        expected = scores.load(CLASSIFIER, prepared(saved, tmp_path / "safe")).score(some_texts())
        torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
        (saved / "model.safetensors").unlink()
        folder = prepared(saved, tmp_path / "converted")
        assert np.array_equal(scores.load(CLASSIFIER, folder).score(some_texts()), expected)
        assert not list(folder.glob("*.bin")) and (saved / "pytorch_model.bin").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(self, tmp_path, zipped):
        class Malicious:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "was here"),)

        saved = a_classifier(tmp_path / "saved")
        (saved / "model.safetensors").unlink()
        torch.save({"weight": Malicious()}, saved / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        refused(saved, tmp_path, "pytorch_model.bin is damaged or holds more than tensors")
        assert not (tmp_path / "was here").exists()

    @pytest.mark.parametrize(
        "content", [b"", b"no pickle", pickle.dumps({"a": 1}, protocol=2), pickle.dumps([1], protocol=2)]
    )
    def test_what_is_no_table_of_tensors_is_refused_by_its_file(self, tmp_path, content):
        saved = a_classifier(tmp_path / "saved")
        (saved / "model.safetensors").unlink()
        (saved / "pytorch_model.bin").write_bytes(content)
        refused(saved, tmp_path, "pytorch_model.bin .*; save the model with safe serialisation")

    def test_a_folder_without_weights_and_a_path_to_no_folder_are_refused(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        (saved / "model.safetensors").unlink()
        refused(saved, tmp_path, "neither .*safetensors nor pytorch_model.bin")
        refused(tmp_path / "nowhere", tmp_path, "nowhere is no folder; correct its path")

    def test_a_model_that_never_learnt_to_classify_is_refused(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        AutoModel.from_pretrained(saved).save_pretrained(saved)
        refused(saved, tmp_path, "no weights for classifier.bias, classifier.weight; give a model that was trained")

    def test_a_model_of_an_unknown_family_is_refused(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps(config | {"model_type": "made_up"}))
        refused(saved, tmp_path, "is no text classifier that transformers opens")

    def test_a_wrong_label_is_refused_with_those_that_there_are(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        refused(saved, tmp_path, "no label 'rude'; name one of toxic, insult, threat", label="rude")
        refused(saved, tmp_path, "no label 'kind'", quantity="sentiment", against="kind")

    def test_outputs_that_are_no_probabilities_are_refused(self, tmp_path):
        saved = a_classifier(tmp_path / "saved", labels=("toxic",), problem_type="regression")
        refused(saved, tmp_path, "regression, whose outputs are no probabilities; set activation to sigmoid")
        refused(saved, tmp_path, "softmax is always 1", activation="softmax")

    def test_weights_that_are_not_finite_are_refused(self, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        weights = load_file(saved / "model.safetensors")
        save_file(
            {key: tensor * torch.nan for key, tensor in weights.items()}, saved / "model.safetensors", {"format": "pt"}
        )
        refused(saved, tmp_path, "not finite")

    def test_a_tokenizer_of_sentencepiece_alone_says_what_to_install(self, tmp_path, monkeypatch):
        saved = a_classifier(tmp_path / "saved")
        (saved / "tokenizer.json").rename(saved / "sentencepiece.bpe.model")
        monkeypatch.setattr("steerlab.scores.classifier.find_spec", lambda name: None)
        refused(saved, tmp_path, "install sentencepiece and protobuf")


def test_the_spec_of_a_run_scores_by_a_classifier_beside_another_scorer(tmp_path):
    saved = a_classifier(tmp_path / "saved")
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    picked = {"toxicity": ["profanity_check", "mine"], "classifiers": {"mine": TOXIC | {"path": str(saved)}}}
    x = experiment.load(default | {"scores": default["scores"] | picked, "device": "cpu"})
    spec = json.loads(x.spec("score_official_generations"))
    folder = prepared(saved, tmp_path / "mine")
    generations = pd.DataFrame({"id": "p", "text": some_texts(range(1, 4))})
    found = scores.texts(generations, scores.chosen(spec["scorers"], [folder]), {"p": "w1 "})
    assert found["scorer"].unique().tolist() == [
        lookups.scorer_label(x.config, name) for name in ("profanity_check", "mine", "vader")
    ]
    mine = found[found["scorer"].str.startswith("saved==")]["score"]
    assert mine.to_numpy() == pytest.approx(by_pipeline(saved, some_texts(range(1, 4)), "toxic"), abs=1e-5)


counter = itertools.count()


def refused(path: Path, tmp_path: Path, reason: str, **definition: object) -> None:
    """Preparing fails with the reason, in one line."""
    with pytest.raises(ScorerError, match=reason) as error:
        prepared(path, tmp_path / f"refused{next(counter)}", **definition)
    assert "\n" not in str(error.value)


def put(web: Web, repo: str, folder: Path) -> dict:
    """The files of a folder on the hub at COMMIT; returns a definition that takes them."""
    web.put_on_the_hub(repo, folder)
    return TOXIC | {"repo": repo, "revision": COMMIT, "endpoint": web.address}


class TestHub:
    def test_a_classifier_comes_from_the_hub_and_scores_as_it_did_there(self, web, tmp_path):
        saved = a_classifier(tmp_path / "saved", "roberta")
        shutil.copy(saved / "model.safetensors", saved / "pytorch_model.bin")  # must not be asked for
        definition = put(web, "someone/some_model", saved)
        scores.prepare(CLASSIFIER, tmp_path / "new", definition=definition)
        judge = scores.load(CLASSIFIER, tmp_path / "new")
        assert judge.score(some_texts()) == pytest.approx(by_pipeline(saved, some_texts(), "toxic"), abs=1e-5)
        assert not any(path.endswith(".bin") for _, path, _ in web.asked)
        assert {file.name for file in (tmp_path / "new").iterdir()} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "scorer.json"
        }  # fmt: skip

    def test_a_commit_with_pickled_weights_alone_is_converted(self, web, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        expected = by_pipeline(saved, some_texts(), "toxic")
        torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
        (saved / "model.safetensors").unlink()
        scores.prepare(CLASSIFIER, tmp_path / "new", definition=put(web, "someone/some_model", saved))
        assert scores.load(CLASSIFIER, tmp_path / "new").score(some_texts()) == pytest.approx(expected, abs=1e-5)
        assert not list((tmp_path / "new").glob("*.bin"))

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_hub_that_refuses_is_one_line_with_what_to_do(self, web, tmp_path, status):
        definition = put(web, "someone/some_model", a_classifier(tmp_path / "saved"))
        web.statuses |= dict.fromkeys(web.files, status)
        with pytest.raises(ScorerError, match="the hub refuses someone/some_model .* set HF_TOKEN") as error:
            scores.prepare(CLASSIFIER, tmp_path / "new", definition=definition)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("revision", ["main", COMMIT[:12]])
    def test_a_revision_that_is_no_commit_is_refused(self, tmp_path, revision):
        definition = TOXIC | {"repo": "someone/some_model", "revision": revision}
        with pytest.raises(ScorerError, match="give the commit's 40 hex digits"):
            scores.prepare(CLASSIFIER, tmp_path / "new", definition=definition)

    def test_the_plan_knows_the_name_that_a_classifier_will_have(self, web, tmp_path):
        saved = a_classifier(tmp_path / "saved")
        of_hub, of_folder = put(web, "someone/some_model", saved), TOXIC | {"path": str(saved)}
        config = {"scores": {"classifiers": {"of_hub": of_hub, "of_folder": of_folder}}}
        for name, definition in config["scores"]["classifiers"].items():
            scores.prepare(CLASSIFIER, tmp_path / name, definition=definition)
            label = scores.label(scores.load(CLASSIFIER, tmp_path / name))
            assert label == lookups.scorer_label(config, name)
        assert lookups.scorer_label(config, "of_hub") == f"someone/some_model=={COMMIT[:12]}:toxic"
