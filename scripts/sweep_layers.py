"""Train an intervention in one layer after the other, and predict the dev rows with each."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, predictions: Path, spec: dict, work: Path) -> None:
    """Write a row a layer, seed and dev row as parquet; finished layers of a killed job lie in `work`.

    spec: layers "middle" (third), "all" or a list; seeds; rows: the first so many training rows, None for all.
    """
    import pandas as pd

    from steerlab import classifiers, layer_choices, sites, store
    from steerlab.data import glue
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    rows, blocks = pd.read_parquet(table), sites.number_of_layers(handle.info.config)
    pairs = [(layer, seed) for layer in layer_choices.swept(spec["layers"], blocks) for seed in spec["seeds"]]
    fitted = glue.of_split(rows, "train").head(len(rows) if spec["rows"] is None else spec["rows"])
    asked, recipe = glue.of_split(rows, "dev"), classifiers.Recipe.of(spec)

    def compute(index: int) -> pd.DataFrame:
        layer, seed = pairs[index]
        found = classifiers.fit_and_predict(handle, fitted, asked, recipe, layers=[layer], seed=seed)
        return found.assign(split=asked.split, layer=layer, seed=seed, blocks=blocks)

    shards = [f"{layer:03d}-{seed}" for layer, seed in pairs]
    made = store.resume(work, shards, compute, desc=f"layers, {spec['intervention']}", unit="layer")
    made.to_parquet(predictions, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, predictions=j.outputs["predictions"], spec=j.spec, work=j.work)
