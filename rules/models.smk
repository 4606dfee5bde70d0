# In: a raw model file, a hub repository, a folder, or nothing for a random model. Out: a model folder in safetensors.


rule prepare_model:
    input:
        source=lambda w: x.model_source(w.model),
    output:
        folder=directory(names.MODEL),
    log:
        names.log(names.MODEL),
    benchmark:
        names.benchmark(names.MODEL)
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=x.config["mem_mb"],
    params:
        spec=lambda w: x.spec("prepare_model", w.items()),
        code=lambda w: x.code("prepare_model"),
    script:
        "../scripts/prepare_model.py"
