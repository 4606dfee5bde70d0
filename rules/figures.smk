# In: metrics, choices and analyses; for the papers' numbers, the CSV of other figures. Out: a figure as SVG and PDF, its
# caption and the CSV behind it. Nothing here needs a model. After `figures` stand LatentQA's experiments by name.


rule plot_figure:
    input:
        unpack(x.figure_input),
    output:
        figure=report(
            names.FIGURE,
            caption="../captions/filled.rst",
            category="{figure}",
            labels={"model": "{model}"},
        ),
        pdf=names.FIGURE_PDF,
        data=names.FIGURE_DATA,
        caption=names.CAPTION,
    log:
        names.log(names.FIGURE),
    benchmark:
        names.benchmark(names.FIGURE)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("plot_figure", w.items()),
        code=lambda w: x.code("plot_figure", figure=w.figure),
    script:
        "../scripts/plot_figure.py"


rule figures:
    input:
        x.figures(),


for named in [
    "read_relations",
    "read_system_prompts",
    "scale_decoder",
    "control_sentiment",
    "control_bias",
]:

    rule:
        name:
            named
        input:
            x.figures(named=named),
