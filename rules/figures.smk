# In: metrics of all methods. Out: a figure, its caption and the CSV behind it. Nothing here needs a model.


rule plot_task:
    input:
        metrics=lambda w: x.every(names.METRICS, **dict(w.items())),
    output:
        figure=report(
            names.FIGURE,
            caption="../captions/filled.rst",
            category="{task}",
            labels={"model": "{model}"},
        ),
        data=names.FIGURE_DATA,
        caption=names.CAPTION,
    log:
        names.log(names.FIGURE),
    benchmark:
        names.benchmark(names.FIGURE)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("plot_task", w.items()),
        code=x.code("plot_task"),
    script:
        "../scripts/plot_task.py"
