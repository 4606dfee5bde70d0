# In: the continuations of a cell, all seeds. Out: one row a text and scorer.


rule score_toxicity:
    input:
        continuations=expand(names.GENERATIONS, seed=x.seeds, allow_missing=True),
    output:
        scores=names.TOXICITY_SCORES,
    log:
        names.log(names.TOXICITY_SCORES),
    benchmark:
        names.benchmark(names.TOXICITY_SCORES)
    conda:
        "../envs/scores.yaml"
    params:
        spec=lambda w: x.spec("score_toxicity", w.items()),
        code=x.code("score_toxicity"),
    script:
        "../scripts/score_toxicity.py"


rule score_perplexity:
    input:
        continuations=expand(names.GENERATIONS, seed=x.seeds, allow_missing=True),
        model=names.MODEL,
        table=names.TABLE,
    output:
        scores=names.PERPLEXITY_SCORES,
    log:
        names.log(names.PERPLEXITY_SCORES),
    benchmark:
        names.benchmark(names.PERPLEXITY_SCORES)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpu,
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("score_perplexity", w.items()),
        code=x.code("score_perplexity"),
    script:
        "../scripts/score_perplexity.py"
