# In: a model, a task's training texts and their activations, or a reader and what it is wished to answer; or steers that
# others are made from. Out: what a method learnt, one folder a seed. And LatentQA's readers of states, from dialogs with
# questions about them.


rule train_steer:
    input:
        activations=x.training_input,
        layer=x.layer_choice,
        reader=x.reader_input,
        model=names.MODEL,
        table=x.training_table,
    output:
        steer=directory(names.STEER),
    log:
        names.log(names.STEER),
    benchmark:
        names.benchmark(names.STEER)
    wildcard_constraints:
        method=f"(?!({x.derived})/)[^/]+",
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=lambda w: x.gpu_of("train_steer", w.items())
        * x.method(w.method).may_run_model,
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("train_steer", w.items()),
        code=lambda w: x.code("train_steer", method=w.method),
    script:
        "../scripts/train_steer.py"


rule derive_steer:
    input:
        unpack(x.subjects),
        model=names.MODEL,
        table=x.sizing_table,
    output:
        steer=directory(names.STEER),
    log:
        names.log(names.STEER),
    benchmark:
        names.benchmark(names.STEER)
    wildcard_constraints:
        method=x.derived,
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("derive_steer"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("derive_steer", w.items()),
        code=lambda w: x.code("derive_steer", method=w.method),
    script:
        "../scripts/derive_steer.py"


rule train_reader:
    input:
        model=names.MODEL,
        table=names.TABLE.format(task="latent_reading"),
    output:
        reader=directory(names.READER),
    log:
        names.log(names.READER),
    benchmark:
        names.benchmark(names.READER)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"] * x.config["latentqa"]["processes"]
    resources:
        gpu=lambda w: x.gpu_of("train_reader", w.items())
        * x.config["latentqa"]["processes"],
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("train_reader", w.items()),
        code=lambda w: x.code("train_reader"),
    script:
        "../scripts/train_reader.py"
