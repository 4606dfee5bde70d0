# In: the continuations of a cell, all seeds; or a steer and the answers that are given. Out: one row a text and
# scorer. Services over the network are asked by a local rule: its jobs share one quota and one cache, and their
# answers are kept for ever.


rule prepare_scorer:
    input:
        source=lambda w: x.scorer_source(w.scorer),
    output:
        folder=directory(names.SCORER),
    log:
        names.log(names.SCORER),
    benchmark:
        names.benchmark(names.SCORER)
    conda:
        "../envs/scores.yaml"
    resources:
        mem_mb=x.config["mem_mb"],
    params:
        spec=lambda w: x.spec("prepare_scorer", w.items()),
        code=lambda w: x.code("prepare_scorer", scorer=w.scorer),
    script:
        "../scripts/prepare_scorer.py"


rule score_texts:
    input:
        continuations=x.generations,
        table=names.TABLE,
        scorers=x.prepared_scorers("score_texts"),
        shards=x.shards("score_texts", names.TEXT_SCORES),
    output:
        scores=names.TEXT_SCORES,
    log:
        names.log(names.TEXT_SCORES),
    benchmark:
        names.benchmark(names.TEXT_SCORES)
    conda:
        "../envs/scores.yaml"
    threads: x.scoring_threads("score_texts")
    resources:
        **x.scoring("score_texts"),
    params:
        spec=lambda w: x.spec("score_texts", w.items()),
        code=lambda w: x.code("score_texts"),
    script:
        "../scripts/score_texts.py"


use rule score_texts as score_texts_shard with:
    output:
        scores=temp(names.shard(names.TEXT_SCORES)),
    log:
        names.log(names.shard(names.TEXT_SCORES)),
    benchmark:
        names.benchmark(names.shard(names.TEXT_SCORES))


rule score_texts_by_service:
    input:
        continuations=x.generations,
        table=names.TABLE,
    output:
        scores=names.SERVICE_SCORES,
    log:
        names.log(names.SERVICE_SCORES),
    benchmark:
        names.benchmark(names.SERVICE_SCORES)
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 0  # it waits for answers, and holds no core meanwhile
    resources:
        services=1,
    params:
        spec=lambda w: x.spec("score_texts_by_service", w.items()),
        code=lambda w: x.code("score_texts_by_service", scorer=w.service),
    script:
        "../scripts/score_texts_by_service.py"


rule score_perplexity:
    input:
        continuations=x.generations,
        model=x.judge_model,
        table=names.TABLE,
        shards=x.shards("score_perplexity", names.PERPLEXITY_SCORES),
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
        gpu=x.gpus("score_perplexity"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("score_perplexity", w.items()),
        code=lambda w: x.code("score_perplexity"),
    script:
        "../scripts/score_perplexity.py"


use rule score_perplexity as score_perplexity_shard with:
    output:
        scores=temp(names.shard(names.PERPLEXITY_SCORES)),
    log:
        names.log(names.shard(names.PERPLEXITY_SCORES)),
    benchmark:
        names.benchmark(names.shard(names.PERPLEXITY_SCORES))


rule score_answers:
    input:
        steer=x.steer_input,
        choice=x.choice_input,
        model=names.MODEL,
        table=names.TABLE,
        shards=x.shards("score_answers", names.ANSWER_SCORES),
    output:
        scores=names.ANSWER_SCORES,
    log:
        names.log(names.ANSWER_SCORES),
    benchmark:
        names.benchmark(names.ANSWER_SCORES)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("score_answers"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("score_answers", w.items()),
        code=lambda w: x.code("score_answers", method=w.method),
    script:
        "../scripts/score_answers.py"


use rule score_answers as score_answers_shard with:
    output:
        scores=temp(names.shard(names.ANSWER_SCORES)),
    log:
        names.log(names.shard(names.ANSWER_SCORES)),
    benchmark:
        names.benchmark(names.shard(names.ANSWER_SCORES))


rule score_references:
    input:
        continuations=x.generations,
        table=names.TABLE,
    output:
        scores=names.REFERENCE_SCORES,
    log:
        names.log(names.REFERENCE_SCORES),
    benchmark:
        names.benchmark(names.REFERENCE_SCORES)
    conda:
        "../envs/scores.yaml"
    params:
        spec=lambda w: x.spec("score_references", w.items()),
        code=lambda w: x.code("score_references"),
    script:
        "../scripts/score_references.py"


rule judge_answers:
    input:
        continuations=x.generations,
        model=x.answer_judge,
        table=names.TABLE,
        shards=x.shards("judge_answers", names.JUDGEMENTS),
    output:
        scores=names.JUDGEMENTS,
    log:
        names.log(names.JUDGEMENTS),
    benchmark:
        names.benchmark(names.JUDGEMENTS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("judge_answers"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("judge_answers", w.items()),
        code=lambda w: x.code("judge_answers"),
    script:
        "../scripts/judge_answers.py"


use rule judge_answers as judge_answers_shard with:
    output:
        scores=temp(names.shard(names.JUDGEMENTS)),
    log:
        names.log(names.shard(names.JUDGEMENTS)),
    benchmark:
        names.benchmark(names.shard(names.JUDGEMENTS))
