"""Figures of the interpretation: what their tables hold, what their captions say, and that any token can be drawn."""

from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.textpath import text_to_path

from steerlab.figures import directions, evidence, spectrum, style, tokens

CAPTIONS = Path(__file__).parents[2] / "captions"
ODD = [
    "Ġ$x^{$",
    "\\frac",
    "Ċ",
    "<0x0A>",
    "Ã©",
    "âĢ",
    "\x00",
    "\u202e",
    "日本",
    "",
    " ",
    "&<>",
    "a" * 40,
    "$$",
    "_",
    "-->",
]


def words(count=10, scores=None):
    rows = [
        (direction, 10.0 / direction, side, rank, 7 * rank, ODD[(direction + rank) % len(ODD)])
        for direction in range(1, count + 1)
        for side in ("largest", "smallest")
        for rank in range(1, 21)
    ]
    table = pd.DataFrame(rows, columns=["direction", "singular_value", "side", "rank", "token_id", "token"])
    scores = scores or (lambda direction, side: 0.1 * direction if (side == "largest") == direction % 2 else 0.05)
    return table.assign(toxicity=[scores(*key) for key in zip(table.direction, table.side)])


def texts(count=8, length=30):
    rows = [
        (
            f"t{text}",
            (-1.0, 1.0)[text % 2],
            place,
            "Ġ" + ODD[place % len(ODD)],
            (np.nan, 0.5, -0.25)[min(2, place)],
            place < 5,
        )
        for text in range(count)
        for place in range(length)
    ]
    table = pd.DataFrame(rows, columns=["id", "label", "position", "token", "evidence", "span"])
    return table.astype({"span": int})


GUESSES = pd.DataFrame(
    {"id": list("abcd") + ["t0"], "label": [1, 1, -1, -1, -1], "guess": [2.0, -1.0, -3.0, 0.0, -1.0]}
)


def spectra(**columns):
    values = np.array([3.0, 2.0, 1.0, 0.0])
    energy = np.cumsum(values**2) / (values**2).sum()
    return pd.DataFrame({"index": range(1, 5), "singular_value": values, "energy": energy, **columns})


def places(count=5000):
    ring = np.linspace(0, 2 * np.pi, count, endpoint=False)
    names = [ODD[i % len(ODD)] for i in range(count)]
    return pd.DataFrame(
        {"token_id": range(count), "token": names, "direction_1": np.cos(ring), "direction_2": np.sin(ring)}
    )


DRAWN = {
    "directions": (directions, lambda: directions.table(words())),
    "evidence": (evidence, lambda: evidence.table(texts(), GUESSES)),
    "spectrum": (spectrum, lambda: spectrum.table(spectra(), places())),
}


def svg(module, table, path):
    style.save(module.plot(table), path)
    return path.read_bytes()


def fill(name, facts):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return environment.from_string((CAPTIONS / f"{name}.rst").read_text()).render(facts)


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_table_gives_the_same_bytes_also_from_its_csv(name, tmp_path):
    module, make = DRAWN[name]
    table = make()
    table.to_csv(tmp_path / "table.csv", index=False)
    again = pd.read_csv(tmp_path / "table.csv")
    again["token"] = table.token  # read_csv takes some tokens, such as "null", for missing values
    assert svg(module, table, tmp_path / "a.svg") == svg(module, again, tmp_path / "b.svg")


@pytest.mark.parametrize("name", DRAWN)
def test_captions_know_all_their_words(name):
    module, make = DRAWN[name]
    facts = module.facts(make())
    assert all(isinstance(phrase, str) for phrase in facts.values())
    assert "{" not in fill(name, facts | {"sample_data": ""})


# ---- tokens ----


def test_markers_of_vocabularies_are_undone():
    assert [tokens.shown(token) for token in ("Ġthe", "▁the", "the", " the")] == ["the"] * 4
    assert tokens.plain("Ġthe") == " the"
    assert tokens.shown("Ã©tÃ©") == "été"
    assert tokens.shown("Niño") == "Niño", "decoded before"
    assert tokens.shown("<0x41>") == "A"


def test_what_cannot_be_seen_gets_a_mark():
    assert tokens.shown("Ċ") == tokens.shown("<0x0A>") == "↵"
    assert tokens.shown("ĠĠ") == tokens.shown("") == "␣"
    assert tokens.shown("âĢ") == tokens.shown("日本") == tokens.shown("\x00") == tokens.shown("¥") == tokens.MISSING


@given(st.text())
def test_any_token_is_printable_short_and_has_glyphs(token):
    shown = tokens.shown(token)
    assert 0 < len(shown) <= tokens.LONGEST
    assert shown.isprintable()
    assert all(letter == " " or ord(letter) in tokens._glyphs() for letter in shown)


def test_widths_are_those_of_the_letters_drawn():
    with style.context():
        from matplotlib.font_manager import FontProperties

        expected = text_to_path.get_text_width_height_descent("words", FontProperties(size=7), ismath=False)[0]
    assert tokens.width("words", 7) == pytest.approx(expected / 72)
    assert tokens.width("words", 14) == pytest.approx(2 * tokens.width("words", 7))


def test_lines_are_filled_in_order_and_kept_within_their_width():
    lines = tokens.wrapped([f"word{i}" for i in range(50)], inches=1.5, size=7, lines=3)
    assert len(lines) == 3
    assert all(tokens.width(line, 7) <= 1.5 for line in lines)
    assert " · ".join(lines).split(" · ") == [f"word{i}" for i in range(len(" · ".join(lines).split(" · ")))]


# ---- directions ----


def test_the_more_toxic_end_is_the_one_with_the_larger_score():
    table = directions.table(words())
    scores = table.drop_duplicates(["direction", "end"]).pivot(index="direction", columns="end", values="toxicity")
    assert (scores["more toxic"] > scores["other"]).all()
    assert len(table) == directions.ROWS * 2 * 20, "nine directions, all words"
    assert set(table[table.end == "more toxic"].side) == {"largest", "smallest"}


def test_a_refused_end_is_not_the_more_toxic_one(tmp_path):
    table = directions.table(words(scores=lambda direction, side: np.nan if side == "largest" else 0.0))
    assert set(table[table.end == "more toxic"].side) == {"smallest"}
    assert svg(directions, table, tmp_path / "a.svg")


def test_directions_without_scores_of_both_sides_are_refused():
    rows = words()
    for broken in (rows[rows.side == "largest"], rows[:0], rows.assign(toxicity=rows["rank"] / 20)):
        with pytest.raises(ValueError, match="figure directions: need two sides"):
            directions.table(broken)


def test_scorer_and_model_reach_the_caption():
    table = directions.table(words().assign(scorer="lexicon==1", model="tiny"))
    caption = fill("directions", directions.facts(table) | {"sample_data": "sample data"})
    assert "LM-Steer of tiny," in caption and "by lexicon==1;" in caption


# ---- evidence ----


def test_the_table_has_the_first_texts_and_the_share_of_each_guess():
    table = evidence.table(texts(), GUESSES)
    shown, counts = table[table.part == "text"], table[table.part == "guess"]
    assert list(shown.id.unique()) == [f"t{i}" for i in range(evidence.TEXTS)]
    assert shown[shown.id == "t0"].guess.eq(-1).all() and shown[shown.id == "t1"].guess.isna().all()
    assert counts.groupby("label").share.sum().tolist() == pytest.approx([1, 1])
    assert counts[(counts.label == -1) & (counts.guess == -3)].share.item() == pytest.approx(1 / 3)


def test_the_caption_says_how_often_the_sign_is_right():
    said = evidence.facts(evidence.table(texts(), GUESSES))["accuracy"]
    assert said == "67 % of the 3 texts labelled −1 (33 % were guessed at 0) and 50 % of the 2 texts labelled +1"


def test_tokens_flow_from_the_left_and_a_long_text_is_cut_with_an_ellipsis():
    flow = evidence._flow(evidence.table(texts(1, 400), GUESSES).query("part == 'text'"))
    assert flow.line.max() == evidence._LINES - 1 and len(flow) < 400
    assert (flow.right <= evidence._TEXT_WIDTH).all()
    for _, line in flow.groupby("line"):
        assert line.left.iloc[0] == 0
        assert (line.left.to_numpy()[1:] >= line.right.to_numpy()[:-1]).all()
    assert flow.shown.iloc[-1].endswith("…")


def test_no_texts_and_no_guesses_are_refused():
    with pytest.raises(ValueError, match="figure evidence: no texts"):
        evidence.table(texts()[:0], GUESSES)


# ---- spectrum ----


def test_the_farthest_tokens_are_kept_and_named_among_a_part_of_the_others():
    table = spectrum.table(spectra(), places(50_000))
    kept = table[table.part == "token"]
    assert len(kept) < spectrum.POINTS + 4 * spectrum.NAMED + 1
    assert set(kept[kept.named.astype(bool)].token_id) >= {0, 12_500, 25_000, 37_500}


def test_directions_that_reach_half_and_most_of_the_energy_are_counted():
    facts = spectrum.facts(spectrum.table(spectra(), places()))
    assert (facts["half"], facts["most"], facts["all"]) == ("1", "2", "4")  # 9/14, 13/14


def test_several_steers_are_named():
    both = pd.concat([spectra(method="lm_steer"), spectra(method="caa")])
    facts = spectrum.facts(spectrum.table(both, places()))
    assert facts["half"] == "1 (LM-Steer) and 1 (CAA)"


def test_a_steer_of_one_direction_is_drawn(tmp_path):
    table = spectrum.table(spectra()[:1], places(20).assign(direction_2=0.0))
    assert svg(spectrum, table, tmp_path / "a.svg")


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="figure spectrum: no singular values"):
        spectrum.table(spectra()[:0], places())
