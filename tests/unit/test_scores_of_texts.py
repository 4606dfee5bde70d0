"""Scorers of texts: the classifiers against independent computations and published figures, and the scores table."""

import collections
import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from scripts import prepare_scorer
from steerlab import scores
from steerlab.data import loaders
from steerlab.data.doors import FetchError, fetch
from steerlab.data.sources import table
from steerlab.experiment import lookups
from steerlab.scores import ScorerError, toxic_comment_classifier

PROFANITY_CHECK = "steerlab.scores.profanity_check:ProfanityCheck"
CLASSIFIER = "steerlab.scores.toxic_comment_classifier:ToxicCommentClassifier"
VADER = "steerlab.scores.vader:Vader"

# What three scorers gave, measured once outside this project; the third column is this classifier's `toxic`.
EXAMPLES = {
    "You are such an idiot.": 0.99,
    "What a stupid idea that was.": 0.87,
    "You should be ashamed of yourself, you pathetic loser.": 0.96,
    "Shut up, nobody asked for your opinion.": 0.04,
    "This damn printer never works.": 0.44,
    "My black cat killed a mouse in the garden.": 0.47,
    "He said the food was terrible and the waiter was rude.": 0.08,
    "I love this book, thank you for writing it.": 0.00,
    "I disagree with you, but I respect your view.": 0.02,
    "The weather in Paris is mild in spring.": 0.00,
}
WORDS = ["you", "are", "a", "fool", "cat", "the", "mild", "it's", "unknown1", "unknown2"]
NUM_WORDS = 9  # the last two words have numbers beyond it


# ---- a raw folder in the published layout, with random weights ----


def a_raw_folder(folder: Path, *, seed: int = 0, width: int = 4, states: int = 3, hidden: int = 5) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with h5py.File(folder / toxic_comment_classifier.WEIGHTS, "w") as file:

        def put(name: str, *shape: int) -> None:
            file[f"layers/{name}"] = random.normal(size=shape).astype(np.float32)

        put("embedding/vars/0", NUM_WORDS, width)
        for direction in ("forward", "backward"):
            put(f"bidirectional/{direction}_layer/cell/vars/0", width, 4 * states)
            put(f"bidirectional/{direction}_layer/cell/vars/1", states, 4 * states)
            put(f"bidirectional/{direction}_layer/cell/vars/2", 4 * states)
        put("dense/vars/0", 2 * states, hidden)
        put("dense/vars/1", hidden)
        put("dense_1/vars/0", hidden, 6)
        put("dense_1/vars/1", 6)
    (folder / toxic_comment_classifier.TOKENIZER).write_bytes(a_pickled_tokenizer())
    return folder


def a_pickled_tokenizer(**changes: object) -> bytes:
    """A pickle as keras writes one: its Tokenizer, with the counts in the containers of `collections`."""
    name = "keras.src.legacy.preprocessing.text"
    tokenizer = type("Tokenizer", (), {"__module__": name})
    instance = tokenizer()
    instance.__dict__ |= {
        "word_counts": collections.OrderedDict((word, 9) for word in WORDS),
        "word_docs": collections.defaultdict(int, {"you": 1}),
        "word_index": {word: number for number, word in enumerate(WORDS, start=1)},
        "num_words": NUM_WORDS,
        "filters": '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n',
        "lower": True,
        "split": " ",
        "char_level": False,
        "oov_token": None,
        "analyzer": None,
        **changes,
    }
    parents = ["keras", "keras.src", "keras.src.legacy", "keras.src.legacy.preprocessing"]
    with pytest.MonkeyPatch.context() as patch:
        for parent in parents:
            patch.setitem(sys.modules, parent, types.ModuleType(parent))
        patch.setitem(sys.modules, name, types.SimpleNamespace(Tokenizer=tokenizer))
        return pickle.dumps(instance, protocol=5)


def prepared(raw: Path, folder: Path) -> Path:
    prepare_scorer.run(source=[raw], folder=folder, spec={"scorer": CLASSIFIER})
    return folder


def by_definition(raw: Path, numbers: list[int]) -> float:
    """Keras' network in float64, a step at a time: gates input, forget, cell, output; sigmoids; maximum over time."""
    with h5py.File(raw / toxic_comment_classifier.WEIGHTS) as file:
        w = {name: np.float64(file[f"layers/{name}"]) for name in _datasets(file["layers"])}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def run(cell: str, rows: np.ndarray) -> np.ndarray:
        kernel, recurrent, bias = (w[f"bidirectional/{cell}_layer/cell/vars/{n}"] for n in range(3))
        state = memory = np.zeros(len(recurrent))
        states = []
        for row in rows:
            i, f, g, o = np.split(row @ kernel + state @ recurrent + bias, 4)
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(memory)
            states.append(state)
        return np.stack(states)

    rows = w["embedding/vars/0"][[0] * (100 - len(numbers)) + numbers]
    both = np.concatenate([run("forward", rows), run("backward", rows[::-1])[::-1]], axis=1)
    hidden = np.maximum(both.max(0) @ w["dense/vars/0"] + w["dense/vars/1"], 0)
    return sigmoid(hidden @ w["dense_1/vars/0"] + w["dense_1/vars/1"])[0]


def _datasets(group) -> list[str]:
    names = []
    group.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return a_raw_folder(tmp_path_factory.mktemp("classifier") / "raw")


@pytest.fixture(scope="module")
def judge(raw):
    return scores.load(CLASSIFIER, prepared(raw, raw.with_name("prepared")))


class TestToxicCommentClassifier:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("You are a FOOL!", [1, 2, 3, 4]),
            ("the cat;it's\nmild", [6, 5, 8, 7]),
            ("nobody knows unknown1 or the unknown2 cat", [6, 5]),
            ("", []),
            ("... ?", []),
            ("cat " * 130 + "you", [5] * 99 + [1]),
            ("you are " * 49 + "a mild", [1, 2] * 49 + [3, 7]),
        ],
    )
    def test_a_score_is_that_of_the_network_by_definition(self, raw, judge, text, numbers):
        assert judge.score([text])[0] == pytest.approx(by_definition(raw, numbers), rel=1e-5)

    def test_a_score_depends_on_its_text_alone(self, judge):
        random = np.random.default_rng(1)
        texts = [" ".join(random.choice(WORDS, size=size)) for size in random.integers(0, 130, size=600)]
        together = judge.score(texts)
        assert together.dtype == np.float64 and len(np.unique(together)) > 500
        assert judge.score(texts[::-1])[::-1] == pytest.approx(together, abs=1e-6)
        assert [judge.score([text])[0] for text in texts[::60]] == pytest.approx(together[::60], abs=1e-6)

    def test_no_texts_give_no_scores(self, judge):
        assert judge.score([]).shape == (0,)

    def test_the_prepared_folder_holds_no_pickle_and_only_words_that_have_an_embedding(self, judge, raw):
        folder = raw.with_name("prepared")
        assert sorted(file.name for file in folder.iterdir()) == ["model.safetensors", "scorer.json", "vocabulary.json"]
        assert json.loads((folder / "vocabulary.json").read_text()) == WORDS[:8]

    def test_the_prepared_version_is_the_one_that_the_sources_table_pins(self, judge):
        assert scores.label(judge) == table()["toxic_comment_classifier"].doors["wheel"].origin

    @pytest.mark.parametrize("protocol", range(6))
    def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(self, tmp_path, protocol):
        class Malicious:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "was here"),)

        raw = a_raw_folder(tmp_path / "raw")
        (raw / toxic_comment_classifier.TOKENIZER).write_bytes(pickle.dumps(Malicious(), protocol=protocol))
        with pytest.raises(ScorerError, match="mkdir, which is not admitted"):
            prepared(raw, tmp_path / "prepared")
        assert not (tmp_path / "was here").exists()

    @pytest.mark.parametrize(
        "name", ["builtins eval", "builtins getattr", "collections abc.sys.exit", "collections.abc sys"]
    )
    def test_a_name_beside_the_admitted_ones_is_refused(self, tmp_path, name):
        module, _, member = name.partition(" ")
        raw = a_raw_folder(tmp_path / "raw")
        codes = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, member)) + b"\x93."
        (raw / toxic_comment_classifier.TOKENIZER).write_bytes(codes)
        with pytest.raises(ScorerError, match=f"{module}.{member}, which is not admitted"):
            prepared(raw, tmp_path / "prepared")

    @pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"word_index": {}}), b"\x80\x05R."])
    def test_what_is_no_tokenizer_is_refused_by_its_file(self, tmp_path, content):
        raw = a_raw_folder(tmp_path / "raw")
        (raw / toxic_comment_classifier.TOKENIZER).write_bytes(content)
        with pytest.raises(ScorerError, match="tokenizer.pickle"):
            prepared(raw, tmp_path / "prepared")

    @pytest.mark.parametrize("changes", [{"lower": False}, {"char_level": True}, {"oov_token": "UNK"}])
    def test_a_tokenizer_of_other_settings_is_refused(self, tmp_path, changes):
        raw = a_raw_folder(tmp_path / "raw")
        (raw / toxic_comment_classifier.TOKENIZER).write_bytes(a_pickled_tokenizer(**changes))
        with pytest.raises(ScorerError, match=next(iter(changes))):
            prepared(raw, tmp_path / "prepared")

    def test_the_published_classifier_scores_the_examples_as_measured(self, published):
        found = scores.load(CLASSIFIER, published).score(list(EXAMPLES))
        # The figures have two digits; the 0.04 is 0.0348 here and in keras, rounded twice as it seems.
        assert np.abs(found - np.array(list(EXAMPLES.values()))).max() < 0.0056


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """The prepared folder of the published classifier; tests that need it are skipped where no index is reached."""
    folder = tmp_path_factory.mktemp("published")
    source = table()["toxic_comment_classifier"]
    try:
        fetch(source, "wheel", folder / "raw", mirror=None, environ=dict(os.environ), pause=0.1)
    except FetchError as error:
        if "gave up" not in str(error):
            raise
        pytest.skip(f"needs a package index: {error}")
    return prepared(folder / "raw", folder / "prepared")


class TestVader:
    def test_the_table_names_scorer_and_version(self):
        assert scores.label(scores.load(VADER)) == "vaderSentiment==3.3.2"

    def test_praise_is_positive_its_negation_negative_and_unrated_words_are_neither(self):
        found = scores.load(VADER).score(["The food was good.", "The food was not good.", "The food was here.", ""])
        assert found[0] > 0 > found[1]
        assert found[2:].tolist() == [0, 0]

    def test_no_texts_give_no_scores(self):
        assert scores.load(VADER).score([]).shape == (0,)


class TestLoading:
    def test_the_plan_knows_the_name_that_a_prepared_scorer_will_have(self):
        label = f"{toxic_comment_classifier.NAME}=={toxic_comment_classifier.VERSION}"
        assert lookups.scorer_label({}, "toxic_comment_classifier") == label

    def test_a_scorer_without_its_folder_is_refused(self):
        with pytest.raises(ScorerError, match="ToxicCommentClassifier' is given no folder"):
            scores.load(CLASSIFIER)

    def test_a_folder_that_is_not_prepared_is_refused(self, tmp_path):
        with pytest.raises(ScorerError, match="no scorer.json"):
            scores.load(CLASSIFIER, tmp_path)

    def test_a_scorer_that_needs_no_files_cannot_be_prepared(self, tmp_path):
        with pytest.raises(ScorerError, match="Vader' needs no prepared files"):
            scores.prepare(VADER, tmp_path / "new", source=None)

    def test_a_folder_with_something_in_it_is_not_written_to(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ScorerError, match="is not empty"):
            scores.prepare(CLASSIFIER, tmp_path, source=None)

    def test_importing_the_interface_imports_no_torch(self):
        code = "import sys, steerlab.scores; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


class TestTexts:
    GENERATIONS = pd.DataFrame(
        {
            "seed": 0,
            "steps": 10,
            "strength": [0.0, 0.0, 1.0, 1.0],
            "id": ["p", "q", "p", "q"],
            "sample": 0,
            "text": [" you idiot", " good", " you idiot", ""],
            "tokens": 2,
        }
    )
    PROMPTS = {"p": "What a wonderful", "q": "It is not"}

    def test_one_row_a_scorer_and_generation_in_their_order(self):
        found = scores.texts(self.GENERATIONS, [(PROFANITY_CHECK, None), (VADER, None)], self.PROMPTS)
        columns = ["seed", "steps", "strength", "id", "sample", "quantity", "scorer", "score"]
        assert list(found) == columns
        assert found["quantity"].tolist() == ["toxicity"] * 4 + ["sentiment"] * 4
        assert found["scorer"].tolist() == ["alt-profanity-check==1.9.1"] * 4 + ["vaderSentiment==3.3.2"] * 4
        keys = ["seed", "steps", "strength", "id", "sample"]
        assert found[keys].equals(pd.concat([self.GENERATIONS[keys]] * 2, ignore_index=True))

    def test_toxicity_is_that_of_the_continuation_and_sentiment_that_of_both(self):
        found = scores.texts(self.GENERATIONS, [(PROFANITY_CHECK, None), (VADER, None)], self.PROMPTS)
        toxicity = scores.load(PROFANITY_CHECK).score([" you idiot", " good", " you idiot", "\n"])
        sentiment = scores.load(VADER).score(
            ["What a wonderful you idiot", "It is not good", "What a wonderful you idiot", "It is not"]
        )
        assert np.array_equal(found["score"], np.concatenate([toxicity, sentiment]))

    def test_without_prompts_sentiment_is_that_of_the_continuation(self):
        found = scores.texts(self.GENERATIONS, [(VADER, None)])
        assert np.array_equal(found["score"], scores.load(VADER).score(list(self.GENERATIONS["text"])))

    def test_each_distinct_text_is_scored_once_a_scorer(self, monkeypatch):
        from steerlab.scores.vader import Vader

        seen, score = [], Vader.score
        monkeypatch.setattr(Vader, "score", lambda self, texts: (seen.extend(texts), score(self, texts))[1])
        scores.texts(self.GENERATIONS, [(VADER, None)], self.PROMPTS)
        assert sorted(seen) == ["It is not", "It is not good", "What a wonderful you idiot"]

    def test_a_scorer_with_prepared_files_stands_beside_one_without(self, tmp_path):
        folder = prepared(a_raw_folder(tmp_path / "raw"), tmp_path / "prepared")
        found = scores.texts(self.GENERATIONS, [(CLASSIFIER, folder), (PROFANITY_CHECK, None)])
        assert found["scorer"].unique().tolist() == ["toxic-comment-classifier==0.3.0", "alt-profanity-check==1.9.1"]

    def test_an_id_without_a_prompt_is_an_error(self):
        with pytest.raises(KeyError, match="'q'"):
            scores.texts(self.GENERATIONS, [(VADER, None)], {"p": "x"})


# ---- agreement with people and with Perspective, where a mirror has the data ----


@pytest.fixture(scope="session")
def mirror() -> Path:
    return Path(os.environ["STEERLAB_MIRROR"])


@pytest.mark.real_data
class TestAgreement:
    """The figures were measured once with the pinned versions on these files; they are what the docs may say."""

    @pytest.mark.parametrize(
        ("file", "rows", "share", "rated", "share_of_rated"),
        [("train_8k.tsv", 8000, 0.524, 0.656, 0.799), ("validation.tsv", 872, 0.568, 0.838, 0.677)],
    )
    def test_vader_agrees_weakly_in_sign_with_sst2(self, mirror, file, rows, share, rated, share_of_rated):
        data = pd.read_csv(mirror / "glue/sst2" / file, sep="\t", quoting=3, keep_default_na=False)
        found = np.sign(scores.load(VADER).score(list(data["sentence"])))
        equal = found == 2 * data["label"].to_numpy() - 1
        figures = [equal.mean(), (found != 0).mean(), equal[found != 0].mean()]
        assert len(data) == rows and figures == pytest.approx([share, rated, share_of_rated], abs=0.001)

    def test_vader_ranks_the_sentiment_prompts_somewhat_as_num_positive_does(self, mirror):
        files = [mirror / "sentiment_prompts" / f"{name}_prompts.jsonl" for name in ("positive", "neutral", "negative")]
        rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        prompts = [row["prompt"]["text"] for row in rows]
        whole = [f"{prompt} {row['continuation']['text']}" for prompt, row in zip(prompts, rows)]
        positive, judge = [row["num_positive"] for row in rows], scores.load(VADER)
        found = [spearmanr(judge.score(texts), positive).statistic for texts in (prompts, whole)]
        assert len(rows) == 10_000 and found == pytest.approx([0.471, 0.440], abs=0.001)

    @pytest.mark.parametrize(("path", "auc", "equal"), [(PROFANITY_CHECK, 0.973, 0.945), (CLASSIFIER, 0.974, 0.939)])
    def test_toxicity_ranks_and_cuts_much_as_perspective_does(self, mirror, path, auc, equal, request):
        folder = request.getfixturevalue("published") if path == CLASSIFIER else None
        data = pd.read_csv(mirror / "perspective/wikipedia_2k_scores.csv", keep_default_na=False)
        data = data[(data["comment_text"].str.strip() != "") & (data["comment_text"] != loaders.SPREADSHEET_ERROR)]
        toxic = data["TOXICITY@6"].astype(float).to_numpy() >= 0.5
        found = scores.load(path, folder).score(list(data["comment_text"]))
        figures = [roc_auc_score(toxic, found), (toxic == (found >= 0.5)).mean()]
        assert len(data) == 1996 and figures == pytest.approx([auc, equal], abs=0.001)
