# In: the metrics of a method on dev prompts, all candidates, and the steers whose layers or heads a fit picked; or of
# variants that adapt one block each; or the curves of a model's layers. Out: the candidates with their figures, and the
# pick.


rule choose_settings:
    input:
        metrics=names.METRICS.replace("{split}", "dev"),
        steers=x.selecting_steers,
    output:
        choice=names.CHOICE,
    log:
        names.log(names.CHOICE),
    benchmark:
        names.benchmark(names.CHOICE)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("choose_settings", w.items()),
        code=lambda w: x.code("choose_settings"),
    script:
        "../scripts/choose_settings.py"


rule choose_layer_by_sweep:
    input:
        metrics=x.swept_metrics,
        model=names.MODEL,
    output:
        choice=names.SWEEP_CHOICE,
    log:
        names.log(names.SWEEP_CHOICE),
    benchmark:
        names.benchmark(names.SWEEP_CHOICE)
    conda:
        "../envs/torch.yaml"
    params:
        spec=lambda w: x.spec("choose_layer_by_sweep", w.items()),
        code=lambda w: x.code("choose_layer_by_sweep"),
    script:
        "../scripts/choose_layer_by_sweep.py"


rule choose_layer_by_reading:
    input:
        curves=names.EYE_TRACKING,
    output:
        choice=names.READING_CHOICE,
    log:
        names.log(names.READING_CHOICE),
    benchmark:
        names.benchmark(names.READING_CHOICE)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("choose_layer_by_reading", w.items()),
        code=lambda w: x.code("choose_layer_by_reading"),
    script:
        "../scripts/choose_layer_by_reading.py"
