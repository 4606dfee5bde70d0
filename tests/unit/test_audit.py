"""Pairs for a blind eye, and how people and scorers agree."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab import cli
from steerlab.experiment import names
from steerlab.metrics import audit

PROMPTS = {f"p{i}": f"prompt {i}" for i in range(6)}
AT = {"model": "m", "task": "toxicity", "split": "test"}


def continuations(side: str, strength: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Two samples a prompt; both sides say the same to the first sample of p0."""
    rows = [
        {"id": id_, "sample": sample, "steps": 0, "strength": strength, "seed": seed, "text": f"{side} {id_} {sample}"}
        for id_ in PROMPTS
        for sample in range(2)
    ]
    return pd.DataFrame([{**rows[0], "text": "the same"}, *rows[1:]])


def sampled(n: int = 8, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    both = [continuations("steered"), continuations("base")]
    return audit.pairs(*both, PROMPTS, quantity="toxicity", n=n, seed=seed)


class TestPairs:
    def test_a_pair_is_two_texts_to_one_prompt_and_the_key_tells_the_steered_side(self) -> None:
        shown, key = sampled()
        assert list(shown) == ["pair", "prompt", "left", "right", "more_toxicity"] and (shown.more_toxicity == "").all()
        assert list(shown.pair) == list(key.pair) == list(range(1, 9))
        for pair, place in zip(shown.itertuples(), key.itertuples()):
            sides = {"left": pair.left, "right": pair.right}
            assert sides.pop(place.steered) == f"steered {place.id} {place.sample}"
            assert [*sides.values()] == [f"base {place.id} {place.sample}"]
            assert pair.prompt == PROMPTS[place.id]
        assert set(key.steered) == {"left", "right"}

    def test_every_prompt_comes_before_one_comes_twice_and_equal_texts_are_no_pair(self) -> None:
        _, six = sampled(n=6)
        assert sorted(six.id) == sorted(PROMPTS)
        _, key = sampled(n=100)
        assert len(key) == 11 and not ((key.id == "p0") & (key["sample"] == 0)).any()

    def test_a_seed_is_one_sample(self) -> None:
        pd.testing.assert_frame_equal(sampled()[0], sampled()[0])
        assert not sampled()[0].equals(sampled(seed=1)[0])

    def test_nothing_but_the_texts_tells_the_sides_apart(self) -> None:
        """Sides are even over many pairs, and independent of the order."""
        many = {f"p{i:04}": "x" for i in range(2000)}
        frames = [
            pd.DataFrame({"id": list(many), "sample": 0, "seed": 0, "text": [f"{side} {i}" for i in range(2000)]})
            for side in ("a", "b")
        ]
        _, key = audit.pairs(*frames, many, quantity="toxicity", n=2000, seed=0)
        is_left = (key.steered == "left").to_numpy()
        assert abs(is_left.mean() - 0.5) < 0.05
        assert abs(np.corrcoef(is_left, key.id.str[1:].astype(int))[0, 1]) < 0.08
        assert abs(np.corrcoef(is_left, key.pair)[0, 1]) < 0.08


KEY = pd.DataFrame({"pair": [1, 2, 3, 4], "id": list("abcd"), "sample": 0, "seed": 0, "steered": ["left", "right"] * 2})


def filled(*said: str) -> pd.DataFrame:
    return pd.DataFrame({"pair": [1, 2, 3, 4], "more_toxicity": said})


class TestAgreement:
    def test_what_a_person_says_is_taken_back_to_the_sides(self) -> None:
        said = audit.judged(filled("left", "LEFT ", "same", ""), KEY)
        assert said.to_dict() == {1: "steered", 2: "other", 3: "same"}

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            (filled("left", "both", "", ""), "pair 2 says 'both' in more_toxicity; write left, right or same"),
            (filled("left", "", "", "").assign(pair=[1, 2, 3, 5]), "not the one that was sampled"),
            (filled("left", "", "", "").drop(columns="more_toxicity"), "not the one that was sampled"),
        ],
    )
    def test_another_answer_or_file_is_refused(self, frame: pd.DataFrame, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            audit.judged(frame, KEY)

    def test_a_scorer_says_which_side_scores_higher_and_nothing_where_a_score_is_missing(self) -> None:
        here = pd.DataFrame(
            {"id": list("abcd"), "sample": 0, "seed": 0, "scorer": "s", "score": [0.1, 0.9, 0.5, np.nan]}
        )
        there = here.assign(score=[0.2, 0.1, 0.5, 0.3])
        says = audit.scored(KEY, here, there)["s"]
        assert says.to_dict() == {1: "other", 2: "steered", 3: "same"}

    def test_shares_and_kappa_are_those_of_the_formulas(self) -> None:
        one = pd.Series(["other", "other", "steered", "steered", "same"], range(5))
        two = pd.Series(["other", "steered", "steered", "steered", "other"], range(5))
        first, second, scorer, _ = audit.agreement({"one": one, "two": two}, {"s": two})
        assert first[:4] == ("one", 5, 4, 0.5) and first[5] == "-"
        assert second[:3] == ("two", 5, 5) and second[5] == "one"
        # Of the 4 pairs that both decided they agree in 3; by chance in 1/2 x 1/4 + 1/2 x 3/4.
        assert second[6] == 0.75 and second[7] == pytest.approx((0.75 - 0.5) / (1 - 0.5))
        low, high = second[4]  # Wilson's interval of 2 in 5
        z, n, p = 1.959964, 5, 0.4
        centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
        assert [low, high] == pytest.approx(expected, abs=1e-6)
        assert scorer[0] == "s" and scorer[5] == "one"

    def test_a_scorer_stands_beside_each_person(self) -> None:
        said = pd.Series(["other", "steered"])
        rows = audit.agreement({"one": said, "two": said}, {"s": said})
        assert [(row[0], row[5]) for row in rows] == [("one", "-"), ("two", "one"), ("s", "one"), ("s", "two")]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's files: the method at two strengths, whose scores fall with it."""
    monkeypatch.chdir(tmp_path)
    table = {"id": list(PROMPTS), "role": "prompt", "split": "test", "rendering": "plain", "label": np.nan}
    for path, frame in {
        names.TABLE.format(**AT): pd.DataFrame(table | {"text": list(PROMPTS.values())}),
        names.GENERATIONS.format(**AT, method="base", seed=0): continuations("base", 0.0),
        names.GENERATIONS.format(**AT, method="caa", seed=0): pd.concat(
            [continuations("weak", 1.0), continuations("steered", 2.0)]
        ),
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path)
    for method in ("base", "caa"):
        drawn = pd.read_parquet(names.GENERATIONS.format(**AT, method=method, seed=0)).drop(columns="text")
        scores = drawn.assign(quantity="toxicity", scorer="s", score=1.0 - 0.3 * drawn.strength)
        scores = pd.concat([scores.assign(quantity="sentiment", scorer="of something else"), scores])
        path = Path(names.TEXT_SCORES.format(**AT, method=method))
        path.parent.mkdir(parents=True)
        scores.to_parquet(path)
    return tmp_path / "results/audit/m/caa/toxicity"


SAMPLE = ["audit", "sample", "--model", "m", "--method", "caa"]


def test_a_sample_is_filled_and_set_beside_the_scorers(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*SAMPLE, "--strength", "2", "--pairs", "6"])
    assert "write left, right or same in more_toxicity" in capsys.readouterr().out
    shown, key = (pd.read_csv(results / name) for name in ("pairs.csv", "key.csv"))
    assert not shown.astype(str).apply(lambda column: column.str.contains("weak|caa")).any(axis=None)
    right = key.steered.map({"left": "right", "right": "left"})  # the other side has more, as the scorer says
    shown.assign(more_toxicity=right).to_csv(results / "ann.csv", index=False)
    shown.assign(more_toxicity=right.where(key.pair > 1, "same")).to_csv(results / "ben.csv", index=False)
    table = results / "table.csv"
    cli.main(["audit", "table", str(results / "ann.csv"), str(results / "ben.csv"), "--csv", str(table)])
    assert "kappa" in capsys.readouterr().out
    rows = pd.read_csv(table)
    assert list(rows.judge) == ["ann", "ben", "s", "s"] and list(rows.decided) == [6, 5, 6, 6]
    assert (rows["steered has less"] == 1.0).all() and (rows.agreement.dropna() == 1.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "caa was run at strengths 1.0, 2.0; choose one with --strength"),
        (["--strength", "3"], "caa was not run at strength 3.0; there are 1.0, 2.0"),
        (["--against", "hpr", "--strength", "2"], "has no continuations; run that cell first"),
    ],
)
def test_what_cannot_be_sampled_is_told_in_a_line(results: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        cli.main([*SAMPLE, *arguments])
    assert "\n" not in str(error.value) and not results.exists()


def test_a_file_that_may_be_filled_is_not_written_over(results: Path) -> None:
    cli.main([*SAMPLE, "--strength", "2"])
    before = (results / "pairs.csv").read_bytes()
    with pytest.raises(SystemExit, match="is there and may be filled"):
        cli.main([*SAMPLE, "--strength", "2", "--seed", "1"])
    assert (results / "pairs.csv").read_bytes() == before
