"""Judge what a reader says of states: with a row's own states, with another row's, with none; and a linear probe."""

from functools import partial
from pathlib import Path

from steerlab.job import job


def run(*, reader: Path, model: Path, table: Path, rows: Path, spec: dict, store: Path) -> None:
    """Write one row a table row and condition as CSV, each with what the reader is. spec: setting, labels, batch_rows,
    max_new_tokens, seed, the states'."""
    import pandas as pd

    from steerlab import activations, latent_reads
    from steerlab.analyses import latent_reading
    from steerlab.methods.latentqa import Decoder, captured
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    decoder = Decoder.load(reader)
    read = {"read_layer": decoder.site.layer, "official_code": decoder.record.config["official_code"]}
    states = partial(captured, handle, **read, **activations.kept(spec, store))
    data = latent_reads.of_setting(pd.read_parquet(table), spec["setting"], spec["labels"])
    parts = [(of_part, states(of_part)) for of_part in data]
    how = {key: spec[key] for key in ("seed", "batch_rows", "max_new_tokens")}
    found = latent_reading.attributes(decoder, handle, *parts, **how)
    trained = data[0][data[0]["split"] == "train"]
    about = {"model": handle.info.name, "rank": decoder.record.config["rank"], "label_share": spec["labels"] or 1.0}
    about |= {"trained_labels": trained["label"].nunique(), "trained_rows": len(trained)}
    found.insert(0, "setting", spec["setting"])
    found.assign(**about).to_csv(rows, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, rows=j.outputs["rows"], spec=j.spec, store=j.store)
