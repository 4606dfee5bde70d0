# In: the continuations and scores of a cell. Out: aggregates with intervals, one row a metric, strength and seed.


rule compute_metrics:
    input:
        continuations=expand(names.GENERATIONS, seed=x.seeds, allow_missing=True),
        toxicity=names.TOXICITY_SCORES,
        perplexity=names.PERPLEXITY_SCORES,
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
        code=x.code("compute_metrics"),
    script:
        "../scripts/compute_metrics.py"
