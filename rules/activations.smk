# In: a model and a task's labelled texts, those that a fit sees or those of the test split. Out: a manifest of
# shards; the bytes lie in the store. The first site of a task's texts is captured together with the others, whose jobs
# then find their shards.


rule capture_activations:
    input:
        model=names.MODEL,
        table=names.TABLE,
        first=lambda w: ancient(x.first_captured(w)),
        shards=x.shards("capture_activations", names.ACTIVATIONS),
    output:
        manifest=names.ACTIVATIONS,
    log:
        names.log(names.ACTIVATIONS),
    benchmark:
        names.benchmark(names.ACTIVATIONS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("capture_activations"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("capture_activations", w.items()),
        code=lambda w: x.code("capture_activations"),
    script:
        "../scripts/capture_activations.py"


use rule capture_activations as capture_activations_shard with:
    output:
        manifest=temp(names.shard(names.ACTIVATIONS)),
    log:
        names.log(names.shard(names.ACTIVATIONS)),
    benchmark:
        names.benchmark(names.shard(names.ACTIVATIONS))
