# In: figures, with captions and the CSVs behind them. Out: the page that a person opens.


rule build_report:
    input:
        figures=x.figures(),
        data=x.figures(pattern=names.FIGURE_DATA),
        captions=x.figures(pattern=names.CAPTION),
    output:
        page=names.REPORT,
    log:
        names.log(names.REPORT),
    benchmark:
        names.benchmark(names.REPORT)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("build_report"),
        code=lambda w: x.code("build_report"),
    script:
        "../scripts/build_report.py"
