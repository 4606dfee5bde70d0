"""Train one reader: a decoder that answers questions about a model's states, from the table of latent reading."""

from pathlib import Path

from steerlab.job import job


def run(*, spec: dict, **given: object) -> None:
    """Fit the decoder and save its folder, in as many processes as the spec says; else as `train`."""
    if "processes" not in spec:
        return train(spec=spec, **given)
    from steerlab.processes import share

    return share(spec["processes"], "scripts.train_reader:train", given | {"spec": spec}, device=spec["device"])


def train(*, model: Path, table: Path, reader: Path, spec: dict, store: Path, work: Path, settings: dict) -> None:
    """Fit the decoder and save its folder, training.csv in it; states and checkpoints lie in the store.

    settings: of latentqa, of which checkpoint_every and tracker change no bytes. Of processes that share the training,
    the first captures the states, unless each has a part of the model alone, and saves.
    """
    from contextlib import nullcontext

    import pandas as pd

    from steerlab import activations, latent_reads, processes
    from steerlab.methods.latentqa import Decoder, captured
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    in_parts = spec.get("sharding") == "fsdp"
    if in_parts:
        processes.shard(handle)
    fitted, _ = latent_reads.of_setting(pd.read_parquet(table), spec["setting"], spec["labels"])
    given = spec["hyperparameters"]
    read = {key: given[key] for key in ("read_layer", "official_code")}
    with nullcontext() if in_parts else processes.first_process_first():
        states = captured(handle, fitted, **read, **activations.kept(spec, Path(store)))
    resumed = {"checkpoint_every": settings["checkpoint_every"], "tracker": settings["tracker"]}
    decoder = Decoder.fit(handle, fitted, states, seed=spec["seed"], **given, checkpoints=Path(work), **resumed)
    if processes.numbered()[0] == 0:
        decoder.save(Path(reader))


if "snakemake" in globals():
    with job(snakemake) as j:
        where = {"spec": j.spec, "store": j.store, "work": j.work, "settings": j.config["latentqa"]}
        run(**j.inputs, reader=j.outputs["reader"], **where)
