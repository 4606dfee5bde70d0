# In: public files, a mirror or the sample that ships with the package. Out: raw folders, and one tidy table a task.


rule fetch_source:
    output:
        folder=directory(names.RAW),
    params:
        spec=lambda w: x.spec("fetch_source", w.items()),
    localrule: True
    retries: 2
    log:
        names.log(names.RAW),
    benchmark:
        names.benchmark(names.RAW)
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/fetch_source.py"


rule make_task_table:
    input:
        unpack(lambda w: x.task_sources(w.task)),
    output:
        table=names.TABLE,
    params:
        spec=lambda w: x.spec("make_task_table", w.items()),
        code=lambda w: x.code("make_task_table", task=w.task),
    log:
        names.log(names.TABLE),
    benchmark:
        names.benchmark(names.TABLE)
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/make_task_table.py"
