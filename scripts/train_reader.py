"""Train one reader: a decoder that answers questions about a model's states, from the table of latent reading."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, reader: Path, spec: dict, store: Path, work: Path, settings: dict) -> None:
    """Fit the decoder and save its folder, training.csv in it; states and checkpoints lie in the store.

    settings: of latentqa, of which checkpoint_every and tracker change no bytes.
    """
    import pandas as pd

    from steerlab import activations, latent_reads
    from steerlab.methods.latentqa import Decoder, captured
    from steerlab.models import ModelHandle

    handle = ModelHandle(model, device=spec["device"], dtype=spec["dtype"], attention=spec["attention"])
    fitted, _ = latent_reads.of_setting(pd.read_parquet(table), spec["setting"], spec["labels"])
    given = spec["hyperparameters"]
    read = {key: given[key] for key in ("read_layer", "official_code")}
    states = captured(handle, fitted, **read, **activations.kept(spec, store))
    resumed = {"checkpoints": work, "checkpoint_every": settings["checkpoint_every"], "tracker": settings["tracker"]}
    Decoder.fit(handle, fitted, states, seed=spec["seed"], **given, **resumed).save(reader)


if "snakemake" in globals():
    with job(snakemake) as j:
        where = {"spec": j.spec, "store": j.store, "work": j.work, "settings": j.config["latentqa"]}
        run(**j.inputs, reader=j.outputs["reader"], **where)
