# In: figures, with captions and the CSVs behind them, the tasks' tables and what people said of the continuations. Out:
# the page that a person opens. And a card of each steer that is compared: what it edits, what it does and costs, and
# examples, from its files and all that was measured of it.


rule write_card:
    input:
        unpack(x.card_input),
        metrics=names.METRICS.replace("{split}", "test"),
        table=names.TABLE,
    output:
        card=names.CARD,
        page=names.CARD_PAGE,
    log:
        names.log(names.CARD),
    benchmark:
        names.benchmark(names.CARD)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("write_card", w.items()),
        code=lambda w: x.code("write_card"),
    script:
        "../scripts/write_card.py"


rule build_report:
    input:
        figures=x.figures(),
        data=x.figures(pattern=names.FIGURE_DATA),
        captions=x.figures(pattern=names.CAPTION),
        cards=x.cards(names.CARD_PAGE),
        tables=expand(names.TABLE, task=x.tasks),
        pairs=x.audit(names.AUDIT_PAIRS),
        agreement=x.audit(names.AUDIT),
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
