# In: the continuations, the scores and the given answers' likelihoods of a cell, the unsteered model's, and the
# scorers' maps to Perspective's scale. Out: aggregates with intervals and paired differences, one row a metric,
# setting and seed. And of all cells of a task with what was measured of their steers: the methods side by side.


rule compute_metrics:
    input:
        unpack(x.of_base),
        continuations=x.generations,
        scores=x.text_scores,
        perplexity=x.judged,
        answers=x.answers,
        table=names.TABLE,
        maps=x.calibration_maps,
    output:
        metrics=names.METRICS,
    log:
        names.log(names.METRICS),
    benchmark:
        names.benchmark(names.METRICS)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("compute_metrics", w.items()),
        code=lambda w: x.code("compute_metrics"),
    script:
        "../scripts/compute_metrics.py"


rule compare_methods:
    input:
        unpack(x.compared),
        table=names.TABLE,
    output:
        comparison=names.COMPARISON,
        pairs=names.COMPARED_PAIRS,
    log:
        names.log(names.COMPARISON),
    benchmark:
        names.benchmark(names.COMPARISON)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("compare_methods", w.items()),
        code=lambda w: x.code("compare_methods"),
    script:
        "../scripts/compare_methods.py"


# In: the continuations of a steer and of the unsteered model. Out: pairs that people judge blind, and the key.
rule sample_audit:
    input:
        unpack(x.sampled),
        table=names.TABLE,
    output:
        pairs=names.AUDIT_PAIRS,
        key=names.AUDIT_KEY,
    log:
        names.log(names.AUDIT_PAIRS),
    benchmark:
        names.benchmark(names.AUDIT_PAIRS)
    conda:
        "../envs/scores.yaml"
    params:
        spec=lambda w: x.spec("sample_audit", w.items()),
        code=lambda w: x.code("sample_audit"),
    script:
        "../scripts/sample_audit.py"


# In: copies of the pairs that people have filled, and the scores. Out: how people and scorers agree.
rule compare_audit:
    input:
        unpack(x.audited),
        sheets=x.config["audit"]["sheets"],
        pairs=names.AUDIT_PAIRS,
        key=names.AUDIT_KEY,
    output:
        agreement=names.AUDIT,
    log:
        names.log(names.AUDIT),
    benchmark:
        names.benchmark(names.AUDIT)
    conda:
        "../envs/scores.yaml"
    params:
        spec=lambda w: x.spec("compare_audit", w.items()),
        code=lambda w: x.code("compare_audit"),
    script:
        "../scripts/compare_audit.py"
