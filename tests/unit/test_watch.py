"""A run is told from Snakemake's log: what is done, runs and failed, how long is left, and the page."""

import argparse
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from steerlab import watch

BEGAN = datetime(2026, 11, 23, 12, 0, 0)
HEAD = """Assuming unrestricted shared filesystem usage.

SNAKEMAKE
=========
  Date: 2026-11-23 12:00:00
  Config file(s): [PosixPath('/work/presets/tiny.yaml'), 'config.yaml']

Building DAG of jobs...
Job stats:
job                        count
----------------------  -------
fetch_source                   1
generate_continuations         4
all                            1
total                          6

"""


def at(seconds: float) -> str:
    return f"[{BEGAN + timedelta(seconds=seconds):%a %b %d %H:%M:%S %Y}]\n"


def begun(rule: str, number: int, seconds: float, *, kind: str = "rule") -> str:
    """As Snakemake writes that a job begins."""
    return at(seconds) + (
        f"{kind} {rule}:\n    output: results/x/{number}\n    log: results/logs/{number}.log\n"
        f"    jobid: {number}\n    reason: Missing output files: results/x/{number}\n"
        f"    wildcards: model=m, seed={number}\n    resources: tmpdir=/tmp\n"
    )


def ended(number: int, seconds: float, rule: str = "generate_continuations") -> str:
    return at(seconds) + f"Finished jobid: {number} (Rule: {rule})\n1 of 6 steps (17%) done\n"


def failed(number: int, seconds: float) -> str:
    return at(seconds) + (
        f"Error in rule generate_continuations:\n    message: None\n    jobid: {number}\n"
        f"    log: results/logs/{number}.log (check log file(s) for error details)\n"
    )


FETCHED = begun("fetch_source", 5, 0, kind="localrule") + ended(5, 10, "fetch_source")
DRAWN = begun("generate_continuations", 1, 10) + begun("generate_continuations", 2, 10) + ended(1, 40)


def names(jobs: list[watch.Job]) -> list[str]:
    return [job.name for job in jobs]


def test_a_log_tells_what_is_done_what_runs_and_the_overlays() -> None:
    run = watch.read(HEAD + FETCHED + DRAWN)
    assert run.asked == {"fetch_source": 1, "generate_continuations": 4, "all": 1}
    assert run.overlays == (Path("/work/presets/tiny.yaml"),)
    assert names(run.done) == ["fetch_source m 5", "generate_continuations m 1"]
    assert names(run.running) == ["generate_continuations m 2"] and not run.failed and not run.is_over
    assert [job.seconds(BEGAN + timedelta(seconds=50)) for job in run.jobs.values()] == [10, 30, 40]


def test_a_job_that_failed_has_its_log_and_one_that_is_tried_again_runs() -> None:
    broken = HEAD + FETCHED + DRAWN + failed(2, 45)
    run = watch.read(broken)
    assert names(run.failed) == ["generate_continuations m 2"] and not run.running
    assert run.failed[0].log == "results/logs/2.log"
    again = watch.read(broken + "Trying to restart job 2.\n" + begun("generate_continuations", 2, 50))
    assert names(again.running) == ["generate_continuations m 2"] and not again.failed
    assert names(watch.read(broken + begun("generate_continuations", 2, 50) + ended(2, 60)).done)[-1].endswith("m 2")


@pytest.mark.parametrize("last", ["Complete log(s): x.log", "Exiting because a job execution failed."])
def test_a_run_that_is_over_has_nothing_that_runs(last: str) -> None:
    run = watch.read(HEAD + FETCHED + DRAWN + last + "\n")
    assert run.is_over and not run.running
    lines = watch.summary(run, BEGAN + timedelta(days=1), {}, {})
    assert lines[0] == "2 of 6 jobs done, 0 running, 0 failed; 0:40 so far" and lines[1] == "the run is over"


def test_the_time_that_is_left_is_that_of_measured_jobs_and_of_rates_for_the_others() -> None:
    run, now = watch.read(HEAD + FETCHED + DRAWN), BEGAN + timedelta(seconds=50)
    # Fetching took 10 s and drawing 30: two more to draw, and 0 s are left of the one that has run for 40. 80 s of
    # work were done in 50 s on the clock.
    told = {"fetch_source": 1.0, "generate_continuations": 3.0, "all": 0.5}
    slower = (10 + 30) / (1 + 3)
    assert watch.seconds_left(run, now, told) == pytest.approx((2 * 30 + 0.5 * slower) / (80 / 50))
    assert watch.seconds_left(watch.read(HEAD + begun("fetch_source", 5, 0)), now, told) is None


def test_the_summary_tells_rules_running_jobs_rates_and_failures() -> None:
    run = watch.read(HEAD + FETCHED + DRAWN + failed(2, 45) + begun("generate_continuations", 3, 46))
    text = "\n".join(watch.summary(run, BEGAN + timedelta(seconds=50), {}, {"drawn": 1234.5}))
    assert "2 of 6 jobs done, 1 running, 1 failed; 0:50 so far" in text
    assert "1,234 tokens/s drawn by a job" in text
    assert "    0:04  generate_continuations m 3" in text
    assert f"{'generate_continuations':24}   1       1      1   4" in text
    assert "FAILED: generate_continuations m 2\n  log: results/logs/2.log" in text


def test_the_page_shows_the_end_of_a_failed_log_escaped_and_refreshes_until_the_run_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "results" / "logs" / "2.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"line {i}\n" for i in range(40)) + "ValueError: <script>alert(1)</script>\n")
    text = HEAD + FETCHED + DRAWN + failed(2, 45)
    chosen = argparse.Namespace(every=10.0, page=Path("results/live.html"))
    html = watch.page(watch.read(text), "some text", chosen)
    assert '<meta http-equiv="refresh" content="10">' in html and '<progress max="6" value="2">' in html
    assert '<a href="logs/2.log">results/logs/2.log</a>' in html
    assert "line 39" in html and "line 20\n" not in html
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "refresh" not in watch.page(watch.read(text + "Complete log(s): x\n"), "some text", chosen)


def test_the_latest_log_is_that_of_a_run_and_not_of_a_plan(tmp_path: Path) -> None:
    assert watch.latest(tmp_path) is None
    for name, text in {"1": HEAD + FETCHED, "2": HEAD + FETCHED + DRAWN, "3": "Building DAG of jobs...\n"}.items():
        (tmp_path / f"{name}.snakemake.log").write_text(text)
    assert watch.latest(tmp_path) == tmp_path / "2.snakemake.log"


def test_where_no_run_has_begun_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = argparse.Namespace(log=None, page=Path("live.html"), once=True, every=1.0)
    with pytest.raises(SystemExit, match="there is no .snakemake/log; call it in the folder of a run that has begun"):
        watch._watch(chosen, lambda overlays: pytest.fail("no configuration is read"))


def test_cards_are_told_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, 93, 60000, 81559'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    lines = watch.summary(watch.read(HEAD + FETCHED), BEGAN + timedelta(seconds=20), {}, {})
    assert "card 0: 93 % busy, 60000 of 81559 MiB" in lines
