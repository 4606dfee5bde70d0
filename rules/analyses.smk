# In: a steer, its model, and the held-out texts' activations. Out: what the steer says in words. And the scores of the
# official code's own continuations, where a mirror holds them; and how far the toxicity scorers agree with Perspective,
# where its scores are there. And how well probes tell answers of the test questions apart, what edits do to norms,
# what steers cost on ordinary text and in time, how far they are from the model, and what they do to its reasoning.
# And how a model's layers go with readers' eye movements; what a decoder reads out of its states: attributes, objects of
# relations, hidden system prompts; and which of two sentences a model finds likelier.


rule interpret_steer:
    input:
        activations=x.training_input,
        steer=names.STEER,
        choice=names.CHOICE,
        model=names.MODEL,
        table=names.TABLE,
        scorers=x.prepared_scorers("interpret_steer"),
    output:
        folder=directory(names.INTERPRETATION),
    log:
        names.log(names.INTERPRETATION),
    benchmark:
        names.benchmark(names.INTERPRETATION)
    conda:
        "../envs/scores.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("interpret_steer"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("interpret_steer", w.items()),
        code=lambda w: x.code("interpret_steer"),
    script:
        "../scripts/interpret_steer.py"


rule count_parameters:
    input:
        steer=names.STEER,
        model=names.MODEL,
    output:
        parameters=names.PARAMETERS,
    log:
        names.log(names.PARAMETERS),
    benchmark:
        names.benchmark(names.PARAMETERS)
    conda:
        "../envs/figures.yaml"
    params:
        spec=lambda w: x.spec("count_parameters", w.items()),
        code=lambda w: x.code("count_parameters"),
    script:
        "../scripts/count_parameters.py"


rule score_official_generations:
    input:
        source=lambda w: x.raw("official_generations"),
        scorers=x.prepared_scorers("score_official_generations"),
    output:
        grid=names.OFFICIAL_GRID,
    log:
        names.log(names.OFFICIAL_GRID),
    benchmark:
        names.benchmark(names.OFFICIAL_GRID)
    conda:
        "../envs/scores.yaml"
    threads: x.scoring_threads("score_official_generations")
    resources:
        **x.scoring("score_official_generations"),
    params:
        spec=lambda w: x.spec("score_official_generations"),
        code=lambda w: x.code("score_official_generations"),
    script:
        "../scripts/score_official_generations.py"


rule calibrate_scorers:
    input:
        unpack(lambda w: x.calibration_sources()),
        scorers=x.prepared_scorers("calibrate_scorers"),
    output:
        statistics=names.CALIBRATION,
        reliability=names.RELIABILITY,
        maps=names.CALIBRATION_MAPS,
    log:
        names.log(names.CALIBRATION),
    benchmark:
        names.benchmark(names.CALIBRATION)
    conda:
        "../envs/scores.yaml"
    threads: x.scoring_threads("calibrate_scorers")
    resources:
        **x.scoring("calibrate_scorers"),
    params:
        spec=lambda w: x.spec("calibrate_scorers"),
        code=lambda w: x.code("calibrate_scorers"),
    script:
        "../scripts/calibrate_scorers.py"


rule evaluate_probes:
    input:
        activations=x.test_activations,
        steer=names.STEER,
        model=names.MODEL,
        table=names.TABLE,
    output:
        accuracies=names.PROBES,
    log:
        names.log(names.PROBES),
    benchmark:
        names.benchmark(names.PROBES)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("evaluate_probes"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("evaluate_probes", w.items()),
        code=lambda w: x.code("evaluate_probes", method=w.method),
    script:
        "../scripts/evaluate_probes.py"


rule measure_coverage:
    input:
        fitted=x.training_input,
        test=x.test_activations,
        steer=names.STEER,
        model=names.MODEL,
        table=names.TABLE,
    output:
        coverage=names.COVERAGE,
    log:
        names.log(names.COVERAGE),
    benchmark:
        names.benchmark(names.COVERAGE)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_coverage"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_coverage", w.items()),
        code=lambda w: x.code("measure_coverage", method=w.method),
    script:
        "../scripts/measure_coverage.py"


rule measure_norms:
    input:
        unpack(x.measured_steers),
        model=names.MODEL,
        table=names.TABLE,
    output:
        norms=names.NORMS,
    log:
        names.log(names.NORMS),
    benchmark:
        names.benchmark(names.NORMS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_norms"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_norms", w.items()),
        code=lambda w: x.code("measure_norms", methods=x.measured(w)),
    script:
        "../scripts/measure_norms.py"


rule measure_ordinary_text:
    input:
        unpack(x.measured_steers),
        model=names.MODEL,
        source=lambda w: x.raw("ordinary_text"),
    output:
        texts=names.ORDINARY_TEXT,
    log:
        names.log(names.ORDINARY_TEXT),
    benchmark:
        names.benchmark(names.ORDINARY_TEXT)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_ordinary_text"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_ordinary_text", w.items()),
        code=lambda w: x.code("measure_ordinary_text", methods=x.measured(w)),
    script:
        "../scripts/measure_ordinary_text.py"


rule measure_reasoning:
    input:
        unpack(x.measured_steers),
        model=names.MODEL,
        source=lambda w: x.raw("reasoning"),
    output:
        questions=names.REASONING,
    log:
        names.log(names.REASONING),
    benchmark:
        names.benchmark(names.REASONING)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_reasoning"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_reasoning", w.items()),
        code=lambda w: x.code("measure_reasoning", methods=x.measured(w)),
    script:
        "../scripts/measure_reasoning.py"


rule measure_divergence:
    input:
        unpack(x.measured_steers),
        model=names.MODEL,
        table=names.TABLE,
        continuations=names.GENERATIONS.format(
            model="{model}", method="base", task="{task}", split="test", seed="{seed}"
        ),
    output:
        divergence=names.DIVERGENCE,
    log:
        names.log(names.DIVERGENCE),
    benchmark:
        names.benchmark(names.DIVERGENCE)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_divergence"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_divergence", w.items()),
        code=lambda w: x.code("measure_divergence", methods=x.measured(w)),
    script:
        "../scripts/measure_divergence.py"


rule measure_speed:
    input:
        unpack(x.measured_steers),
        model=names.MODEL,
        table=names.TABLE,
    output:
        speed=names.SPEED,
    log:
        names.log(names.SPEED),
    benchmark:
        names.benchmark(names.SPEED)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_speed"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_speed", w.items()),
        code=lambda w: x.code("measure_speed", methods=x.measured(w)),
    script:
        "../scripts/measure_speed.py"


rule correlate_eye_tracking:
    input:
        model=names.MODEL,
        table=names.TABLE.format(task="eye_tracking"),
    output:
        curves=names.EYE_TRACKING,
    log:
        names.log(names.EYE_TRACKING),
    benchmark:
        names.benchmark(names.EYE_TRACKING)
    conda:
        "../envs/scores.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("correlate_eye_tracking"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("correlate_eye_tracking", w.items()),
        code=lambda w: x.code("correlate_eye_tracking"),
    script:
        "../scripts/correlate_eye_tracking.py"


rule read_attributes:
    input:
        reader=names.READER,
        model=names.MODEL,
        table=names.TABLE.format(task="latent_reading"),
    output:
        rows=names.LATENT_READING,
    log:
        names.log(names.LATENT_READING),
    benchmark:
        names.benchmark(names.LATENT_READING)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("read_attributes"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("read_attributes", w.items()),
        code=lambda w: x.code("read_attributes"),
    script:
        "../scripts/read_attributes.py"


rule answer_relations:
    input:
        reader=names.READER,
        model=names.MODEL,
        table=names.TABLE.format(task="relations"),
    output:
        rows=names.RELATIONS,
    log:
        names.log(names.RELATIONS),
    benchmark:
        names.benchmark(names.RELATIONS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("answer_relations"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("answer_relations", w.items()),
        code=lambda w: x.code("answer_relations"),
    script:
        "../scripts/answer_relations.py"


rule identify_system_prompts:
    input:
        reader=names.READER,
        model=names.MODEL,
        table=names.TABLE.format(task="system_prompts"),
        trained=names.TABLE.format(task="latent_reading"),
    output:
        rows=names.SYSTEM_PROMPTS,
    log:
        names.log(names.SYSTEM_PROMPTS),
    benchmark:
        names.benchmark(names.SYSTEM_PROMPTS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("identify_system_prompts"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("identify_system_prompts", w.items()),
        code=lambda w: x.code("identify_system_prompts"),
    script:
        "../scripts/identify_system_prompts.py"


rule measure_bias:
    input:
        steers=x.biased_steers,
        model=names.MODEL,
        table=names.TABLE.format(task="bias"),
    output:
        pairs=names.BIAS,
    log:
        names.log(names.BIAS),
    benchmark:
        names.benchmark(names.BIAS)
    conda:
        "../envs/torch.yaml"
    threads: x.config["threads"]
    resources:
        gpu=x.gpus("measure_bias"),
        mem_mb=x.config["mem_mb"],
        runtime=x.config["runtime"],
    params:
        spec=lambda w: x.spec("measure_bias", w.items()),
        code=lambda w: x.code("measure_bias", methods=x.biased_methods(w)),
    script:
        "../scripts/measure_bias.py"
