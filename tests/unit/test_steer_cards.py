"""Steer cards: what they say of saved steers and made-up tables, that nothing of it becomes markup, and the export."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from scripts import build_report
from steerlab import cli, experiment, export_command, methods
from steerlab.analyses import norms
from steerlab.experiment import names
from steerlab.experiment.registry import METHODS
from steerlab.metrics import comparison, continuations
from steerlab.report import card, markdown, saved_steers
from tests.browser import needs_chromium, opened, overflow
from tests.laws.subjects import STEERS, fitted, handle, reader
from tests.workflow.project import ROOT, copy_project, plan

PRESET = ROOT / "presets/tiny.yaml"
NASTY = "</code><script>alert(1)</script> | `x` [a](javascript:b) **b** ``` &amp; _c_ # d"


def saved(folder: Path, method: str) -> saved_steers.Saved:
    fitted(method, "llama").save(folder)
    return saved_steers.saved(folder)


# ---- what a steer edits ----


@pytest.mark.parametrize("method", [name for name in STEERS if not METHODS[name].is_derived])
def test_what_a_steer_edits_is_told_of_its_saved_record(method: str, tmp_path: Path):
    found = saved(tmp_path, method)
    config, told = found.record["config"], saved_steers.edits(found)
    layers = [site["layer"] for site in found.record["sites"] if site["layer"] is not None]
    said = {
        "caa": ("adds {multiplier:g} times a vector to the states at the block output",),
        "hpr": ("an angle that a net of depth {angle_net_layers} gives",),
        "iti": ("attention heads by {alpha:g} standard deviations",),
        "slim": ("affine map each (κ {kappa:g})", "at least {thresholds[0]} of"),
        "lora": ("a change of rank {rank} (α {alpha:g}) to k_proj, o_proj, q_proj, v_proj of layers 0–2",),
        "latentqa": ("a change of rank {rank} (α {alpha:g}) to", "up_proj", "of layers 0–1"),
        "lm_steer": ("ε = {eps:g} times a linear map of itself of rank 4", "at the output head's input"),
        "cogsteer": ("a bottleneck adapter (1/{reduction} of the width) in block {blocks[0]}",),
    }
    assert all(words.format_map(config) in told for words in said[method])
    whole = method in ("hpr", "lora", "latentqa", "lm_steer")
    assert told.endswith("at all tokens" if whole else "from the last prompt token on")
    if layers and method != "iti":  # which names its heads
        assert saved_steers._layers(layers) in told


def test_every_heads_layer_of_iti_is_named(tmp_path: Path):
    found = saved(tmp_path, "iti")
    chosen = found.record["selection"]["candidates"][: found.record["selection"]["pick"]]
    for layer in {one["layer"] for one in chosen}:
        heads = saved_steers._ranges(one["head"] for one in chosen if one["layer"] == layer)
        assert f"layer {layer}: {heads}" in saved_steers.edits(found)


def test_a_random_control_says_so_and_a_method_without_words_of_its_own_has_its_sites(tmp_path: Path):
    assert saved_steers.edits(saved(tmp_path, "random_caa")).endswith("random directions in place of the learnt ones")
    site = {"name": "block_output", "layer": 2}
    record = {"method": "mine", "config": {}, "sites": [site, site | {"layer": 3}, site | {"layer": 7}]}
    assert saved_steers.edits(saved_steers.Saved(record, {})) == "the states at the block output of layers 2–3, 7"


def test_a_folder_that_holds_no_steer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"holds no steer: it has no steer\.json; name results/steers"):
        saved_steers.saved(tmp_path)


# ---- a card of made-up tables ----

PROMPTS = [f"id{number:02d}" for number in range(21)]
ABOUT = {
    "model": "tiny", "base_model": "owner/tiny", "method": "caa", "task": "toxicity", "seeds": [0, 1],
    "base_seeds": [0], "signal": "labelled_texts", "ours": True, "control": "random_caa",
    "setting": {"steps": "pick", "strength": "pick"}, "metric": "mean_toxicity", "goal": "lower",
    "scorer": "lexicon==1",
    "sources": [{"source": "comments", "door": "sample", "licence": "MIT | CC0"}], "data": "sample",
}  # fmt: skip
CHOICE = {
    "pick": {"steps": 0, "strength": 2.0}, "goal": "lower", "objective": "mean_toxicity", "scorer": "lexicon==1",
    "candidates": [{}, {}, {}], "perplexity_limit": 1.3,
}  # fmt: skip


def values() -> pd.DataFrame:
    """The unsteered model's prompts score 0.5; steered, prompt i scores i / 100 less, at another strength nothing."""
    rows = [("base", 0, 0.0, 0, id, 0.5, 1.0) for id in PROMPTS]
    rows += [("caa", 0, 2.0, seed, id, 0.5 - i / 100, 1.0) for seed in (0, 1) for i, id in enumerate(PROMPTS)]
    rows += [("caa", 0, 1.0, 0, id, 0.5, 1.0) for id in PROMPTS]
    return pd.DataFrame(rows, columns=["method", "steps", "strength", "seed", "id", "numerator", "denominator"])


def texts(text: str = "you {side}") -> pd.DataFrame:
    rows = [
        (method, 0, strength, seed, id, sample, text.replace("{side}", f"{method} {seed} {sample}"))
        for method, strength in (("base", 0.0), ("caa", 2.0), ("caa", 1.0))
        for seed in (1, 0)
        for id in PROMPTS
        for sample in (1, 0)
    ]
    return pd.DataFrame(rows, columns=["method", "steps", "strength", "seed", "id", "sample", "text"])


def comparisons() -> pd.DataFrame:
    common = dict.fromkeys(comparison.COLUMNS, np.nan) | {"steps": 0, "n": 21, "judge": "tiny, unsteered"}
    ends = {"effect": 0.1, "effect_low": 0.05, "effect_high": 0.15, "rank": 1.0, "rank_low": 1.0, "rank_high": 2.0}
    prices = {"kl": 0.02, "kl_low": 0.01, "kl_high": 0.03, "seconds_a_token": 0.002, "base_seconds_a_token": 0.001}
    own = {"method": "caa", "setting": "picked", "control": False, "strength": 2.0, "p_base": 0.01} | ends | prices
    rows = [
        own,
        own | {"strength": 1.0, "setting": "other", "effect": 9.0},
        own | {"method": "random_caa", "control": True, "effect": 0.004} | dict.fromkeys(("rank", "p_base"), np.nan),
        own | {"method": "hpr", "rank": 2.0},
        {"method": "caa", "setting": "equal KL", "control": False, "kl_level": 0.01, "strength": np.nan}
        | ends
        | {"effect": 0.06},
    ]
    here = pd.DataFrame([common | row for row in rows]).assign(task="toxicity", metric="mean_toxicity")
    there = pd.DataFrame([common | own | {"strength": 1.0, "effect": -0.03}]).assign(task="sentiment", metric="mc2")
    return pd.concat([here, there], ignore_index=True)


def metrics() -> pd.DataFrame:
    common = {
        "model": "tiny", "method": "caa", "task": "toxicity", "split": "test", "prompts": "all", "steps": 0,
        "strength": 2.0, "seed": "all", "low": 0.1, "high": 0.3, "base": 0.6, "difference_low": -0.5,
        "difference_high": -0.3, "n": 21, "samples": 2, "scorer": "lexicon==1", "data": "sample",
    }  # fmt: skip
    rows = [
        {"metric": "mean_toxicity", "value": 0.2, "difference": -0.4},
        {"metric": "dist_2", "value": 0.77, "difference": 0.17},
        {"metric": "dist_2", "value": 0.111, "difference": 0.0, "strength": 1.0},
        {"metric": "dist_2", "value": 0.222, "difference": 0.0, "seed": "0"},
        {"metric": "dist_2", "value": 0.333, "difference": 0.0, "prompts": "negative"},
    ]
    return pd.DataFrame([common | row for row in rows])[continuations.COLUMNS]


def sizes(**of_method: float | None) -> pd.DataFrame:
    """Sizes of edits at two layers; None for a method that edits no states."""
    rows = []
    for method, size in of_method.items():
        one = dict.fromkeys(norms.COLUMNS, 1.0) | {"method": method, "prompts": 16, "site": "block_output"}
        rows.append(one | {"kind": "stream", "layer": 5, "ratio": 1.25, "low": 1.2, "high": 1.3})
        rows += [one | {"kind": "edit", "layer": layer, "size": size} for layer in (3, 4) if size is not None]
    return pd.DataFrame(rows)


def measured(**changes: object) -> card.Measured:
    known = {
        "choice": CHOICE,
        "comparisons": comparisons(),
        "metrics": metrics(),
        "norms": sizes(caa=0.12, random_caa=0.13),
        "values": values(),
        "prompts": {id: f"The man of {id}" for id in PROMPTS},
        "continuations": texts(),
        "trained_on": "10 texts",
    }
    return card.Measured(**known | changes)  # pyright: ignore[reportArgumentType]


def steers() -> dict[int, saved_steers.Saved]:
    record = {
        "steer": "steerlab.methods.caa:CAA", "method": "caa", "model": "tiny", "revision": "34f4", "data": "7c87",
        "config": {"multiplier": 1.0}, "sites": [{"name": "block_output", "layer": 3}],
    }  # fmt: skip
    return {seed: saved_steers.Saved(record | {"seed": seed}, {"vector": (16,)}) for seed in (0, 1)}


def written(about: dict | None = None, **changes: object) -> str:
    return card.of_run(ABOUT | (about or {}), steers(), measured(**changes))


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of every table's rows, by the first."""
    lines = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_the_front_matter_is_yaml_with_what_a_hub_reads():
    text = written()
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert {"license", "base_model", "library_name", "tags", "metrics"} <= front.keys()
    assert (front["base_model"], front["library_name"]) == ("owner/tiny", "steerlab")
    assert {"caa", "toxicity"} <= set(front["tags"]) and front["metrics"][0] == "mean_toxicity"


def test_a_steers_numbers_stand_beside_its_random_controls():
    found = rows_of(written())
    assert found["effect"] == [r"+0.100 \[+0.0500, +0.150\]", r"+0.00400 \[+0.0500, +0.150\]"]
    assert found["rank"] == [r"1 \[1, 2\] of 2", "not ranked"]
    assert found["effect at equal KL (0.0100 nats a token)"] == [r"+0.0600 \[+0.0500, +0.150\]", "not reached"]
    assert found["KL divergence from the unsteered model, nats a token"][0] == r"0.0200 \[0.0100, 0.0300\]"
    assert found["seconds a token"][0] == "0.00200 (unsteered: 0.00100)"
    assert found["perplexity over the unsteered model's"] == ["not measured", "not measured"]
    assert found["p against the unsteered model (Holm)"] == ["0.0100", "–"]
    assert all(len(cells) == 1 for name, cells in rows_of(written({"control": None})).items() if name == "effect")


def test_the_size_of_an_edit_is_its_mean_over_layers_or_said_not_to_be_measured():
    assert rows_of(written())["size of the edit"] == [
        "0.120 of the size of the states at the block output, mean over 2 layers (1.00 of the tokens changed)",
        "0.130 of the size of the states at the block output, mean over 2 layers (1.00 of the tokens changed)",
    ]
    assert rows_of(written(norms=pd.DataFrame()))["size of the edit"] == ["not measured", "not measured"]
    weights = rows_of(written(norms=sizes(caa=None)))["size of the edit"]
    assert weights == [
        r"no states are edited; the last block's output has 1.25 \[1.20, 1.30\] times its norm",
        weights[1],
    ]


def test_side_effects_are_all_metrics_of_its_own_setting_over_all_seeds_and_prompts():
    text = written()
    assert rows_of(text)["dist-2"] == [
        "lexicon==1",
        r"0.770 \[0.100, 0.300\]",
        "0.600",
        r"+0.170 \[−0.500, −0.300\]",
        "21",
    ]
    assert not re.search(r"0\.111|0\.222|0\.333", text)


def test_what_the_method_does_on_other_tasks_is_told_and_so_is_that_there_is_none():
    assert rows_of(written())["sentiment"][:2] == ["1", r"−0.0300 \[+0.0500, +0.150\] (MC2)"]
    alone = comparisons().query("task == 'toxicity'")
    assert "not compared on another task" in written(comparisons=alone)


def test_how_the_strength_was_picked_is_told():
    picked = rows_of(written())["strength"]
    assert picked[0] == "2"  # of the comparison's table, which stands last
    assert "of 3 candidates the one of lowest mean toxicity on dev prompts" in written()
    fixed = written({"setting": {"steps": 0, "strength": 2.0}}, choice=None)
    assert "set in the configuration, as nothing is picked on toxicity" in fixed


def test_what_differs_between_seeds_is_told_by_seed():
    both = steers()
    both[1].record["config"] = {"multiplier": 3.0}  # pyright: ignore[reportIndexIssue]
    told = rows_of(card.of_run(ABOUT, both, measured()))
    assert (
        told["what it edits"][0].startswith("seed 0: adds 1 times") and "; seed 1: adds 3" in told["what it edits"][0]
    )
    assert told["model revision"] == ["34f4"]


def test_the_texts_that_a_fit_was_given_are_counted_by_class():
    rows = pd.DataFrame({"label": [1.0, 1.0, -1.0, 0.0]})
    texts = {0: saved_steers.Saved({"config": {"held_out": 0.2, "texts": 3}}, {})}
    said = card.training_texts(rows, texts.values())
    assert said.startswith("4 texts (2 wished, 1 unwished), of them 3 at most") and "a share of 0.2" in said
    dialogs = pd.DataFrame({"turns": ["a", "a", "b"], "question": list("xyz")})
    assert card.training_texts(dialogs, texts.values()) == "3 questions about 2 dialogs"


# ---- examples ----


def test_examples_are_the_prompts_at_the_percentiles_of_their_changes():
    text = written()
    headings = re.findall(r"^### (.*)$", text, re.M)
    # Prompt i falls by i / 100, so that the largest fall is the least change.
    assert headings == [f"{at}th percentile: prompt {id}" for at, id in ((10, "id18"), (50, "id10"), (90, "id02"))]
    assert "mean toxicity: unsteered 0.500, steered 0.320" in text
    assert text.index("Warning: prompts and continuations") < text.index("The man of id18")


def test_the_changes_are_those_of_the_comparison():
    both = card.scores(values(), "caa", (0, 2.0))
    effect = comparison.effects(values(), "lower")["caa", 0, 2.0]
    np.testing.assert_allclose((both.base - both.steered)[effect.index], effect)


def test_both_sides_show_the_first_sample_of_the_first_seed():
    text = written()
    assert text.count("you base 0 0") == text.count("you caa 0 0") == 3
    assert not re.search(r"you \w+ (1|0 1)", text)


def test_ties_go_by_the_order_of_ids_and_one_prompt_stands_at_all_percentiles():
    even = pd.Series(0.0, index=PROMPTS)
    assert card.picked(even) == {"id02": [10], "id10": [50], "id18": [90]}
    assert card.picked(even[:1]) == {"id00": [10, 50, 90]}
    assert card.picked(even[:0]) == {}


def test_only_prompts_that_both_continued_are_examples_and_without_texts_the_scores_stand_alone():
    few = texts().query("id < 'id05'")
    assert re.findall(r"prompt (id\d+)$", written(continuations=few), re.M) == ["id04", "id02", "id00"]
    assert "first sample" not in written(continuations=pd.DataFrame())
    assert "The man of id10" in written(continuations=pd.DataFrame())


# ---- nothing becomes markup ----


class Shown(HTMLParser):
    """The elements of a page, and the text of each <code> and of each <td>."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {"code": [], "td": [], "p": []}
        self._in: str | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in self.texts:
            self._in = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        self._in = None if tag == self._in else self._in

    def handle_data(self, data):
        if self._in:
            self.texts[self._in][-1] += data


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs", "Cf"]) | st.just(" "), min_size=1))
def test_escaped_words_show_as_they_are(words: str):
    line = " ".join(words.split())
    shown = Shown(MarkdownIt("commonmark", {"html": False}).enable("table").render(f"x {markdown.escaped(words)}"))
    assert shown.texts["p"] == [f"x {line}".rstrip()] and set(shown.tags) == {"p"}


@given(st.text(st.sampled_from("`~a<&|\n #>*-"), min_size=1))
def test_no_text_closes_its_fence(text: str):
    shown = Shown(MarkdownIt("commonmark", {"html": False}).render(f"{markdown.fenced(text)}\n\nafter"))
    assert shown.texts["code"] == [f"{text.rstrip() or '(nothing)'}\n"] and shown.texts["p"] == ["after"]


def test_what_is_no_letter_is_shown_as_a_picture():
    assert markdown.fenced("a\x00\x1b[31mb\u202ec\n\td") == "```text\na␀␛[31mb\ufffdc\n\td\n```"


def nasty() -> str:
    prompts = {id: f"{NASTY}\n```\n# {id}" for id in PROMPTS}
    about = {"scorer": NASTY, "sources": [{"source": NASTY, "door": "url", "licence": NASTY}]}
    return written(about, prompts=prompts, continuations=texts(f"{NASTY} {{side}}\n~~~\n````\n<b>x"), trained_on=NASTY)


def test_no_word_of_a_cards_input_becomes_markup():
    page = markdown.html(nasty())
    tags = set(Shown(page).tags)
    assert tags == set(Shown(markdown.html(written())).tags) and not {"script", "b", "img"} & tags
    assert page.count("<a ") == 1, "the link to the report alone"
    assert Shown(page).texts["td"].count(NASTY) >= 3
    assert any(code.startswith(f"{NASTY}\n```\n# id18") for code in Shown(page).texts["code"])


def test_a_page_has_no_front_matter_and_the_title_of_its_card():
    page = markdown.html(written())
    assert "<title>CAA on toxicity, for tiny</title>" in page and "library_name" not in page


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_does_not_scroll_sideways(width: int, tmp_path: Path):
    (tmp_path / "card.html").write_text(markdown.html(nasty()))
    with opened(width=width) as page:
        page.goto(f"file://{tmp_path / 'card.html'}")
        assert overflow(page) == 0 and page.errors == []
        assert page.locator("h1").inner_text() == "CAA on toxicity, for tiny"
        assert page.locator("pre").first.inner_text().startswith(NASTY)


# ---- export ----


def run_of(folder: Path, method: str = "caa") -> Path:
    """A saved steer where a run has it."""
    steer = folder / names.STEER.format(model="tiny", method=method, task="toxicity", seed=0)
    fitted(method, "llama").save(steer)
    return steer


@pytest.mark.parametrize("method", ["caa", "lm_steer", "slim", "lora"])
def test_an_exported_steer_gives_the_same_logits(method: str, tmp_path: Path):
    steer, model = run_of(tmp_path, method), handle("llama")
    export_command.export(steer, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "steer.json", "steer.safetensors"}
    ids, logits = torch.arange(40, 60)[None], []
    for loaded in (methods.load(steer, model), methods.load(tmp_path / "out", model)):
        with torch.no_grad(), loaded.attached(model.load(), 1.0):
            logits.append(model.load()(ids).logits)
    assert torch.equal(*logits)


def test_the_readme_is_the_card_of_the_run_and_names_the_seed(tmp_path: Path):
    steer = run_of(tmp_path)
    found = tmp_path / names.CARD.format(model="tiny", method="caa", task="toxicity")
    found.parent.mkdir(parents=True)
    found.write_text(written())
    assert export_command.export(steer, tmp_path / "out") == found
    readme = (tmp_path / "out/README.md").read_text()
    assert readme.startswith(written()) and "It holds the steer of seed 0." in readme
    assert "methods.load(Path(" in readme


def test_without_a_card_the_readme_tells_what_the_record_says(tmp_path: Path):
    assert export_command.export(run_of(tmp_path), tmp_path / "out") is None
    readme = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(readme.split("---\n")[1])
    assert front["base_model"] == "tiny-llama-0" and "metrics" not in front
    assert "adds 1 times a vector" in readme and "Nothing that was measured" in readme


def test_a_folder_that_is_not_empty_and_one_without_a_steer_are_refused_and_nothing_is_written(tmp_path: Path):
    steer, full = run_of(tmp_path), tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty; name a new folder"):
        export_command.export(steer, full)
    with pytest.raises(ValueError, match="holds no steer"):
        export_command.export(tmp_path, tmp_path / "out")
    reader("llama").save(tmp_path / "reader")
    with pytest.raises(ValueError, match="holds a reader of states and no steer"):
        export_command.export(tmp_path / "reader", tmp_path / "out")
    for name in export_command.FILES[::-1]:
        (steer / name).write_bytes(b"broken")
        with pytest.raises(ValueError, match="holds a damaged steer .*; train it again"):
            export_command.export(steer, tmp_path / "out")
    assert [path.name for path in full.iterdir()] == ["mine.txt"] and not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_an_error_in_one_line(tmp_path: Path, capsys):
    steer = run_of(tmp_path)
    cli.main(["export", str(steer), str(tmp_path / "out")])
    assert "steer.json, steer.safetensors" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^export: .*not empty; name a new folder$"):
        cli.main(["export", str(steer), str(tmp_path / "out")])


# ---- the rule ----


def test_every_compared_steer_but_a_control_has_a_card(monkeypatch):
    monkeypatch.chdir(ROOT)
    x = cli._experiment([PRESET])
    assert isinstance(x, experiment.Experiment)
    found = {Path(path).with_suffix("").parts[-2:] for path in x.cards(names.CARD)}
    assert found == {
        ("lm_steer", "toxicity"), ("cogsteer", "toxicity"), ("lm_steer", "sentiment"), ("latentqa", "sentiment"),
        ("hpr", "truthfulness"), ("slim", "truthfulness"), ("cogsteer_and_lm_steer", "toxicity"),
    }  # fmt: skip
    at = {"model": "tiny-llama", "method": "lm_steer", "task": "toxicity"}
    spec = json.loads(x.spec("write_card", at.items()))
    assert (spec["control"], spec["setting"]) == ("random_lm_steer", {"steps": "pick", "strength": "pick"})


def test_the_tiny_preset_plans_a_card_from_steers_to_its_two_files(tmp_path: Path):
    target = names.CARD.format(model="tiny-llama", method="lm_steer", task="toxicity")
    jobs = {job.rule: job for job in plan(copy_project(tmp_path / "project"), "--", target)}
    job = jobs["write_card"]
    assert job.outputs == tuple(f"report/cards/tiny-llama/lm_steer/toxicity.{ending}" for ending in ("md", "html"))
    assert {
        "steers/tiny-llama/lm_steer/toxicity/0", "choices/tiny-llama/lm_steer/toxicity.json",
        "metrics/tiny-llama/comparison/toxicity.csv", "metrics/tiny-llama/lm_steer/toxicity/test.csv",
        "analyses/tiny-llama/norms/toxicity/0.csv", "generations/tiny-llama/base/toxicity/test/0.parquet",
    } <= job.inputs  # fmt: skip


def test_the_report_links_to_every_card_beside_it(tmp_path: Path):
    report = tmp_path / "results/report"
    card_page = report / "cards/tiny/random_caa/toxicity.html"
    report.mkdir(parents=True)
    spec = {"config": dict.fromkeys(("device", "dtype", "attention", "threads"), "-")}
    spec |= {"groups": {}, "not_run": [], "data": [], "models": [], "scorers": [], "pairs": []}
    at = {
        "figures": [],
        "tables": [],
        "agreement": [],
        "results": tmp_path / "results",
        "page": report / "index.html",
        "spec": spec,
    }
    build_report.run(**at, cards=[card_page])
    link = '<a href="cards/tiny/random_caa/toxicity.html">random directions (CAA) on toxicity, for tiny</a>'
    assert link in (report / "index.html").read_text()
    build_report.run(**at, cards=[])
    assert "Steer cards" not in (report / "index.html").read_text()
