"""Compare all methods on one task: effects, prices, ranks, and effects at equal KL divergence."""

import json
from pathlib import Path

from steerlab.job import job


def run(*, files: dict[str, list[Path]], table: Path, comparison: Path, pairs: Path, spec: dict) -> None:
    """Write one row a method and setting, and one a pair of methods, as CSV.

    files: of each method of spec["cells"] the KINDS of compute_metrics and `choice`, as "<kind>_of_<method>"; and
    divergence, questions and speed, the analyses that there are. spec: cells (seeds, steps and strength, its own
    setting, by method; "base" is one of them), metric, goal, scorer, judge, controls, ours, kl, resamples, confidence;
    model, task and data label the rows.
    """
    import pandas as pd

    from steerlab.metrics import cell
    from steerlab.metrics import comparison as compared

    parts, picks = [], {}
    for method, about in spec["cells"].items():
        own = {kind: files.get(f"{kind}_of_{method}", []) for kind in KINDS}
        rows = cell.by_prompt(own, about["seeds"], table, {spec["metric"]: spec["scorer"], PERPLEXITY: spec["judge"]})
        parts.append(rows.assign(method=method))
        choice = files.get(f"choice_of_{method}", [])
        picked = json.loads(choice[0].read_text())["pick"] if choice else {}
        steps, strength = (picked[key] if about[key] == "pick" else about[key] for key in ("steps", "strength"))
        picks[method] = (int(steps), float(strength))
    values = pd.concat(parts, ignore_index=True)
    del picks["base"]
    analyses = {name: pd.concat(map(pd.read_csv, files[name])) for name in ANALYSES if files.get(name)}
    rows, of_pairs = compared.compare(
        compared.effects(values[values.metric == spec["metric"]], spec["goal"]),
        picks,
        controls=frozenset(spec["controls"]),
        perplexity=values[values.metric == PERPLEXITY],
        **analyses,
        **{key: spec[key] for key in ("kl", "resamples", "confidence")},
    )
    labels = {key: spec[key] for key in ("model", "task", "metric", "scorer", "judge", "data")}
    rows.assign(ours=rows.method.isin(spec["ours"]), **labels).to_csv(comparison, index=False)
    of_pairs.assign(**labels).to_csv(pairs, index=False)


KINDS = ("continuations", "scores", "perplexity", "answers")
ANALYSES = ("divergence", "questions", "speed")
PERPLEXITY = "perplexity"


if "snakemake" in globals():
    with job(snakemake) as j:
        files = {name: paths for name, paths in j.inputs.items() if name != "table"}
        run(files=files, table=j.inputs["table"], **j.outputs, spec=j.spec)
