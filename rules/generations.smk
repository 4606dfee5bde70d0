# In: a model, a steer where the method has one, a choice where the settings come from one, and a task's prompts. Out:
# continuations, one row each, one file a seed.


rule generate_continuations:
    input:
        steer=x.steer_input,
        choice=x.choice_input,
        model=names.MODEL,
        table=names.TABLE,
        shards=x.shards("generate_continuations", names.GENERATIONS),
    output:
        continuations=names.GENERATIONS,
    log:
        names.log(names.GENERATIONS),
    benchmark:
        names.benchmark(names.GENERATIONS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("generate_continuations"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("generate_continuations", w.items()),
        code=lambda w: x.code("generate_continuations", method=w.method),
    script:
        "../scripts/generate_continuations.py"


use rule generate_continuations as generate_continuations_shard with:
    output:
        continuations=temp(names.shard(names.GENERATIONS)),
    log:
        names.log(names.shard(names.GENERATIONS)),
    benchmark:
        names.benchmark(names.shard(names.GENERATIONS))
