"""Commands and configurations in README.md, CONTRIBUTING.md and docs/ are taken by the programs that they call.

Snakemake plans each with -n, `python -m steerlab` parses its arguments, make and bash read theirs with -n, and what is
configuration goes through the checker. The pages on adding something are followed by tests of their own.
"""

import argparse
import functools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from steerlab import cli
from steerlab.data import sources
from steerlab.experiment import config
from tests.workflow.project import ROOT, copy_project, dry_run

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.S | re.M)
INDENTED = re.compile(r"(?:(?<=\n\n)|^)(?:    .*\n)+", re.M)
COMMAND = re.compile(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?(snakemake|python|make|pip) ")
ELSEWHERE = "as-a-module.md"  # its commands of snakemake and make are called in another project: test_module.py
PLUGINS = ("kubernetes",)  # executors that are not in the lock; their page says that it was not run


def code_blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, code, the paragraph before) in the order of the page; of an indented block "sh" or "yaml", by line."""
    text = page.read_text()
    fenced = {match.start(): (match[1], match[2]) for match in FENCED.finditer(text)}
    prose = FENCED.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), text)
    for start, code in sorted(fenced.items() | {m.start(): ("", m[0]) for m in INDENTED.finditer(prose)}.items()):
        before = text[:start].rstrip().rpartition("\n\n")[2]
        parts = [code] if start in fenced else _by_line(re.sub(r"^    ", "", code[1], flags=re.M))
        yield from ((*part, before) for part in parts)


def _by_line(code: str) -> Iterator[tuple[str, str]]:
    other = ""
    for line in code.splitlines(keepends=True):
        if COMMAND.match(line):
            yield from [("yaml", other)] if other else []
            yield "sh", line
            other = ""
        else:
            other += line
    yield from [("yaml", other)] if other else []


def configuration(code: str) -> dict | None:
    """The overlay that a block is; None for one that is none."""
    try:
        loaded = yaml.safe_load(filled(code))
    except yaml.YAMLError:
        return None
    return loaded if isinstance(loaded, dict) and set(loaded) & set(config.schema()["properties"]) else None


def filled(code: str) -> str:
    """The code with a word in each <place to fill>."""
    return re.sub(r"<[a-z][^>\n]*>", "something", code)


def commands(code: str) -> list[str]:
    """The single commands of a block of shell, without comments."""
    lines = filled(code).replace("\\\n", " ").splitlines()
    without = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    return [" ".join(part.split()) for line in without for part in line.split(" && ") if part]


def every() -> Iterator[tuple[str, str, dict]]:
    """(page, command, the last configuration on the page before it)."""
    for page in PAGES:
        own: dict = {}
        for language, code, _ in code_blocks(page):
            if language == "yaml":
                own = configuration(code) or own
            elif language in ("sh", "bash"):
                yield from ((page.name, command, own) for command in commands(code))


def called(program: str) -> list:
    """The different calls of a program as parameters: arguments, and the page's own configuration where it is named."""
    found = {}
    for page, command, own in every():
        if page == ELSEWHERE and program in ("snakemake", "make"):
            continue
        words = re.sub(r"^(?:[A-Z_]+=\S* )*(?:\.venv/bin/)?", "", command)
        words = re.sub(r"^(snakemake.*?) -n\b", r"\1", words)
        if words.split()[: len(program.split())] == program.split():
            arguments = words.removeprefix(program).strip()
            if "mine.yaml" not in arguments or not page.startswith("adding-"):
                found.setdefault(arguments, own if "mine.yaml" in arguments else {})
    return [pytest.param(arguments, own, id=arguments or "alone") for arguments, own in found.items()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout, with the folders beside it that pages name."""
    folder = copy_project(tmp_path_factory.mktemp("pages") / "project")
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("my-model", "my-classifier"):
        (folder.parent / name).mkdir()
    return folder


@pytest.mark.parametrize("arguments,own", called("snakemake"))
def test_snakemake_plans_what_the_pages_call(arguments: str, own: dict, project: Path):
    if any(plugin in arguments for plugin in PLUGINS):
        pytest.skip("an executor that is not in the lock")
    if own:
        a_mirror_for(own, project)
        (project / "mine.yaml").write_text(yaml.safe_dump(own))
    given = shlex.split(arguments)
    configured = () if "--configfile" in given else ("--configfile", "config.yaml")  # else that of the tests is taken
    dry_run(project, "--quiet", "all", *configured, "--cores", "1", *given)


def a_mirror_for(own: dict, project: Path) -> None:
    """Empty files where the configuration looks for those of its mirror: enough to plan with."""
    data = own.get("data", {})
    for name, door in data.get("sources", {}).items():
        for file in sources.table()[name].doors[door].files:
            path = project / data["mirror"] / file.remote
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


class _Parsed(Exception):
    """The arguments were taken; the command itself is not to run."""


@pytest.mark.parametrize("arguments,own", called("python -m steerlab"))
def test_the_command_line_takes_what_the_pages_call(arguments: str, own: dict, monkeypatch: pytest.MonkeyPatch):
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, given: list[str]) -> None:
        raise _Parsed(parse(self, given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises((_Parsed, SystemExit)) as ended:
        cli.main(whole(shlex.split(arguments)))
    assert ended.type is _Parsed or ended.value.code == 0, arguments  # --help ends by itself


@functools.cache
def whole_calls() -> dict[str, list[str]]:
    """By subcommand, the arguments of its first call that leaves nothing out."""
    calls = [shlex.split(param.values[0]) for param in called("python -m steerlab")]
    return {call[0]: call for call in reversed(calls) if "..." not in call and "--help" not in call}


def whole(arguments: list[str]) -> list[str]:
    """Arguments with those of an earlier call in the place of "..." behind the subcommand."""
    if arguments[1:2] == ["..."]:
        return [*whole_calls()[arguments[0]], *arguments[2:]]
    return [word for word in arguments if word != "..."]


@pytest.mark.parametrize("arguments,own", called("make"))
def test_make_knows_what_the_pages_call(arguments: str, own: dict, project: Path):
    result = subprocess.run(["make", "-n", *shlex.split(arguments)], cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_bash_can_read_every_block_of_shell(page: Path):
    for language, code, _ in code_blocks(page):
        if language in ("sh", "bash"):
            result = subprocess.run(["bash", "-n"], input=filled(code), capture_output=True, text=True)
            assert result.returncode == 0, result.stderr + code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_of_the_pages_pass_the_checker(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    for language, code, before in code_blocks(page):
        overlay = configuration(code) if language in ("", "yaml") else None
        if overlay and not page.name.startswith("adding-"):
            presets = re.findall(r"presets/[\w.-]+\.yaml", before) if "mine.yaml" in before else []
            below = [yaml.safe_load(Path(name).read_text()) for name in ("config.yaml", *presets)]
            config.check(functools.reduce(cli._merged, [*below, overlay]))


def test_the_pages_hold_what_this_looks_for():
    assert len(called("snakemake")) > 12 and len(called("python -m steerlab")) > 20 and len(called("make")) > 8
    overlays = [
        code for page in PAGES for language, code, _ in code_blocks(page) if language == "yaml" and configuration(code)
    ]
    assert len(overlays) > 8
