# In: the continuations, the scores and the given answers' likelihoods of a cell, the unsteered model's, and the
# scorers' maps to Perspective's scale. Out: aggregates with intervals and paired differences, one row a metric,
# setting and seed.


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
