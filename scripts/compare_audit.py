"""Set what people say of the sampled pairs beside what the scorers say."""

from pathlib import Path

from steerlab.job import job


def run(
    *, sheets: list[Path], pairs: Path, key: Path, scores: list[Path], base_scores: list[Path], agreement: Path
) -> None:
    """Write the table (CSV). sheets: filled copies of the pairs, named after who filled them."""
    import pandas as pd

    from steerlab.metrics import audit

    shown, known = pd.read_csv(pairs), pd.read_csv(key)
    if known.empty:
        raise ValueError(f"{pairs} has no pairs, as both sides wrote the same texts; leave audit.sheets empty")
    people = {file.stem: audit.judged(audit.of_sample(file, shown), known) for file in sheets}
    quantity, strength = known[["quantity", "strength"]].iloc[0]
    ours, theirs = (pd.concat(map(pd.read_parquet, files)) for files in (scores, base_scores))
    ours = ours[(ours["quantity"] == quantity) & (ours["strength"] == strength)]
    theirs = theirs[theirs["quantity"] == quantity]
    audit.table(audit.agreement(people, audit.scored(known, ours, theirs))).to_csv(agreement, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, **j.outputs)
