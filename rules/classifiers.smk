# In: GLUE's rows and a model. Out: for each intervention a sweep over layers on dev rows and the layer chosen from it;
# classifiers with that layer, another one, all layers, or the head alone; what training each costs; the comparison.


rule make_glue_table:
    input:
        source=x.glue.raw,
    output:
        table=names.GLUE_TABLE,
    log:
        names.log(names.GLUE_TABLE),
    benchmark:
        names.benchmark(names.GLUE_TABLE)
    conda:
        "../envs/data.yaml"
    params:
        spec=lambda w: x.spec("make_glue_table", w.items()),
        code=lambda w: x.code("make_glue_table"),
    script:
        "../scripts/make_glue_table.py"


rule sweep_layers:
    input:
        model=names.MODEL,
        table=names.GLUE_TABLE,
    output:
        predictions=names.LAYER_SWEEP,
    log:
        names.log(names.LAYER_SWEEP),
    benchmark:
        names.benchmark(names.LAYER_SWEEP)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("sweep_layers"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("sweep_layers", w.items()),
        code=lambda w: x.code("sweep_layers"),
    script:
        "../scripts/sweep_layers.py"


rule choose_glue_layer:
    input:
        predictions=names.LAYER_SWEEP,
    output:
        choice=names.GLUE_CHOICE,
    log:
        names.log(names.GLUE_CHOICE),
    benchmark:
        names.benchmark(names.GLUE_CHOICE)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("choose_glue_layer", w.items()),
        code=lambda w: x.code("choose_glue_layer"),
    script:
        "../scripts/choose_glue_layer.py"


rule train_classifier:
    input:
        model=names.MODEL,
        table=names.GLUE_TABLE,
        choice=x.glue.choice,
    output:
        predictions=names.CLASSIFIER,
    log:
        names.log(names.CLASSIFIER),
    benchmark:
        names.benchmark(names.CLASSIFIER)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("train_classifier"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("train_classifier", w.items()),
        code=lambda w: x.code("train_classifier"),
    script:
        "../scripts/train_classifier.py"


rule measure_training:
    input:
        model=names.MODEL,
        table=names.GLUE_TABLE,
        choices=x.glue.choices,
    output:
        costs=names.TRAINING_COST,
    log:
        names.log(names.TRAINING_COST),
    benchmark:
        names.benchmark(names.TRAINING_COST)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_training"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_training", w.items()),
        code=lambda w: x.code("measure_training"),
    script:
        "../scripts/measure_training.py"


rule compare_layers:
    input:
        swept=x.glue.swept,
        trained=x.glue.trained,
    output:
        metrics=names.LAYER_COMPARISON,
    log:
        names.log(names.LAYER_COMPARISON),
    benchmark:
        names.benchmark(names.LAYER_COMPARISON)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("compare_layers", w.items()),
        code=lambda w: x.code("compare_layers"),
    script:
        "../scripts/compare_layers.py"
