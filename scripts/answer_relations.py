"""Ask a reader for the objects of relations, by the states of texts that mention their subjects."""

from pathlib import Path

from steerlab.job import job


def run(*, reader: Path, model: Path, table: Path, rows: Path, spec: dict, store: Path) -> None:
    """Write one row a table row and condition as CSV. spec: setting, batch_rows, max_new_tokens, seed, beside, the
    states'."""
    import pandas as pd

    from steerlab import activations
    from steerlab.analyses import identification
    from steerlab.methods.latentqa import Decoder, captured
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    decoder, data = Decoder.load(reader), pd.read_parquet(table)
    read = {"read_layer": decoder.site.layer, "official_code": decoder.record.config["official_code"]}
    states = captured(handle, data, **read, **activations.kept(spec, store))
    how = {key: spec[key] for key in ("seed", "beside", "batch_rows", "max_new_tokens")}
    found = identification.relations(decoder, handle, (data, states), **how)
    found.insert(0, "setting", spec["setting"])
    found.to_csv(rows, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, rows=j.outputs["rows"], spec=j.spec, store=j.store)
