"""Ask a reader which system prompt stands before a user's message, by the states of the message alone."""

from pathlib import Path

from steerlab.job import job


def run(*, reader: Path, model: Path, table: Path, trained: Path, rows: Path, spec: dict, store: Path) -> None:
    """Write one row a table row and condition as CSV; trained: what the reader was trained on, which says whose labels
    it has seen. spec: setting, batch_rows, max_new_tokens, reply_tokens, seed, beside, the states'."""
    import pandas as pd

    from steerlab import activations, latent_reads
    from steerlab.analyses import identification
    from steerlab.methods.latentqa import Decoder, captured
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    fitted, _ = latent_reads.of_setting(pd.read_parquet(trained), spec["setting"], spec["labels"])
    data = identification.with_parts(pd.read_parquet(table), fitted)
    decoder = Decoder.load(reader)
    read = {"read_layer": decoder.site.layer, "official_code": decoder.record.config["official_code"]}
    states = captured(handle, data, **read, **activations.kept(spec, store))
    how = {key: spec[key] for key in ("seed", "beside", "batch_rows", "max_new_tokens", "reply_tokens")}
    found = identification.hidden_prompts(decoder, handle, (data, states), **how)
    found.insert(0, "setting", spec["setting"])
    found.to_csv(rows, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, rows=j.outputs["rows"], spec=j.spec, store=j.store)
