"""What the run cost: the sidecars that jobs write beside their outputs, one row each, and their sums by rule."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

COLUMNS = ["output", "rule", "seconds", "peak_mib", "threads", "device", "started", "ended", "code"]
BY_RULE = ["rule", "jobs", "seconds", "peak_mib", "threads", "device"]


def collect(results: Path) -> pd.DataFrame:
    """Read every `<output>.run.json` below the results folder, in the order in which the jobs started.

    Returns COLUMNS: output is the path below results; seconds of wall time; peak_mib the largest memory of the
    job; device "cpu" or "cuda".
    Raises ValueError naming a sidecar that cannot be read or lacks a key.
    """
    return pd.DataFrame([_read(path, results) for path in sorted(results.rglob("*.run.json"))], columns=COLUMNS).pipe(
        lambda table: table.sort_values(["started", "output"], ignore_index=True)
    )


def versions(results: Path) -> dict[str, str]:
    """Versions of the packages that the jobs ran with, by name; several, where they differ, one after the other."""
    found: dict[str, set[str]] = {}
    for path in results.rglob("*.run.json"):
        for name, version in json.loads(path.read_text()).get("versions", {}).items():
            found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(each)) for name, each in sorted(found.items())}


def by_rule(costs: pd.DataFrame) -> pd.DataFrame:
    """Sums over the jobs of each rule, rules in the order of their first start: columns BY_RULE.

    seconds are added up, though jobs may have run side by side; peak_mib is the largest of any job.
    """
    groups = costs.groupby("rule", sort=False)
    return pd.DataFrame(
        {
            "jobs": groups.size(),
            "seconds": groups["seconds"].sum(),
            "peak_mib": groups["peak_mib"].max(),
            "threads": groups["threads"].max(),
            "device": groups["device"].agg(_distinct),
        }
    ).reset_index(names="rule")[BY_RULE]


def _read(path: Path, results: Path) -> Mapping[str, object]:
    try:
        sidecar = json.loads(path.read_text())
        return {key: sidecar[key] for key in COLUMNS[1:]} | {
            "output": path.relative_to(results).as_posix().removesuffix(".run.json")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"costs: sidecar {path} is damaged ({error!r}); delete it and its output and run again"
        ) from error


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values}))
