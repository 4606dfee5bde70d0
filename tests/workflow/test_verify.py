"""`verify`: a job done again from its sidecar alone gives the same bytes, and what does not is told."""

import ast
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from steerlab import cli, store, verification
from tests.workflow.project import ROOT, sidecars

STEER = "results/steers/tiny-llama/lm_steer/toxicity/0"
CELL = "results/generations/tiny-llama/lm_steer/toxicity/dev/0.parquet"
CAPTURED = "results/activations/tiny-llama/toxicity/fitted/lm_head_input-all.json"
FIGURE = "results/figures/all/calibration.svg"


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What of a finished run the verified jobs read and wrote, with its store; the working folder of the test."""
    for name in ("results/data/toxicity.parquet", "results/models/tiny-llama", CELL, CAPTURED, STEER, FIGURE):
        shutil.copytree((finished / name).parent, (tmp_path / name).parent, dirs_exist_ok=True)
    shutil.copytree(finished / ".store", tmp_path / ".store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(capsys: pytest.CaptureFixture[str], *cells: str, expect: int = 0) -> str:
    """What `python -m steerlab verify` prints, in this process."""
    code = 0
    try:
        cli.main(["verify", *cells])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr().out
    assert code == expect, printed
    return printed


def test_jobs_done_again_give_the_same_bytes_and_take_nothing_from_the_store(project: Path, capsys):
    before = {path: path.read_bytes() for path in (project / "results").rglob("*") if path.is_file()}
    shards = list((project / ".store/generations").rglob("*.parquet"))
    for shard in shards:  # whole shards of finished work, with other texts
        wrong = pd.read_parquet(shard).assign(text="of another run")
        store.write_shard(shard, lambda path, wrong=wrong: wrong.to_parquet(path, index=False))
    printed = verify(capsys, CELL, STEER, CAPTURED)
    assert shards and "jobs: 3 identical, 0 different" in printed
    assert all(f"identical: {path}" in printed for path in (CELL, STEER, CAPTURED))
    assert re.search(r"identical: (\d+) of \1 shards are in the store", printed)
    assert before == {path: path.read_bytes() for path in (project / "results").rglob("*") if path.is_file()}


def test_a_changed_output_is_told_with_its_rows(project: Path, capsys):
    table = pd.read_csv(TABLE := FIGURE.replace(".svg", ".csv"))
    table.loc[3, "value"] += 0.25
    table.to_csv(TABLE, index=False)
    printed = verify(capsys, TABLE, expect=1)
    told = f"column value in 1 of {len(table)} rows: 3; largest difference 0.25, in value"
    assert f"differs: {TABLE}: {told}; what its job wrote is identical, the file has changed since" in printed
    assert f"identical: {FIGURE}" in printed


def test_a_changed_input_is_told_and_nothing_is_done_again(project: Path, capsys):
    (project / STEER / "steer.json").write_text("{}")
    printed = verify(capsys, "tiny-llama/lm_steer/toxicity/dev/0", expect=1)
    assert f"input steer has changed since: {STEER}" in printed and "bring back what it read" in printed


def test_weights_that_are_not_the_models_are_told(project: Path, capsys):
    weights = project / "results/models/tiny-llama/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "input model has other weights than its model.json says" in verify(capsys, CELL, expect=1)


def test_code_and_versions_that_have_changed_are_told(project: Path):
    about = json.loads((project / f"{CELL}.run.json").read_text())
    assert not list(verification._changes(about))
    about["code"] = about["code"].replace("steerlab.methods.lm_steer", "steerlab.methods.hpr")
    about["versions"]["torch"] = "1.0"
    code, torch = verification._changes(about)
    assert code == "code of generate_continuations has changed since" and torch.startswith("torch was 1.0, is ")


def test_an_older_sidecar_tells_what_it_lacks(project: Path, capsys):
    sidecar = project / f"{CELL}.run.json"
    about = json.loads(sidecar.read_text())
    old = {key: about[key] for key in ("rule", "spec", "wildcards", "threads", "versions")}
    sidecar.write_text(json.dumps(old | {"outputs": [CELL], "code": about["code"].split()[0]}))
    assert "its sidecar is of an older release and names no inputs" in verify(capsys, CELL, expect=1)


def test_what_was_never_made_is_an_error_of_one_line(project: Path):
    with pytest.raises(SystemExit, match="verify: no sidecar tells how results/no.parquet was made; name an output"):
        cli.main(["verify", "results/no.parquet"])


def test_every_job_of_a_finished_run_can_be_done_again_or_is_named_as_one_that_is_not(finished: Path, monkeypatch):
    """Its sidecar names inputs that are there with their hashes, and code that is this code; nothing is run."""
    monkeypatch.chdir(finished)
    done_again = set()
    for about in sidecars(finished):
        assert [*verification._changes(about), *verification._changed_inputs(about)] == []
        if not verification.not_done_again(about):
            done_again.add(about["rule"])
            given = verification.stands_for(about, Path("again"))
            assert given["input"].keys() == about["inputs"].keys() and json.loads(given["params"]["spec"])
    assert {"train_steer", "generate_continuations", "compute_metrics", "plot_figure"} < done_again
    assert not done_again & verification.NOT_DONE_AGAIN.keys()


SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("rule", SCRIPTS)
def test_a_script_asks_for_nothing_that_its_stand_in_lacks(rule: str):
    """Neither of Snakemake's object, nor of the configuration, nor the clock or the environment: or it is named."""
    source = (ROOT / "scripts" / f"{rule}.py").read_text()
    read = {node.slice.value for node in ast.walk(ast.parse(source)) if _is_of_config(node)}
    asks = set(re.findall(r"\bsnakemake\.(\w+)", source)) - {"wildcards"}
    outside = re.search(r"os\.environ|time\.|Path\(\"results\"\)|training_cost", source)
    if rule not in verification.NOT_DONE_AGAIN:
        assert read <= {*verification.READ} and not asks and not outside


def _is_of_config(node: ast.AST) -> bool:
    """True for j.config["key"]."""
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) == "j.config"


def test_what_is_not_done_again_is_a_rule():
    assert verification.NOT_DONE_AGAIN.keys() < set(SCRIPTS)
