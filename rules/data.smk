# In: public files, a mirror or the sample that ships with the package. Out: raw folders, and one tidy table a task; the
# same with shuffled labels; and of a control, dialogs with what a reader is wished to answer about them.


rule fetch_source:
    output:
        folder=directory(names.RAW),
    log:
        names.log(names.RAW),
    benchmark:
        names.benchmark(names.RAW)
    retries: 2
    localrule: True
    conda:
        "../envs/data.yaml"
    params:
        spec=lambda w: x.spec("fetch_source", w.items()),
    script:
        "../scripts/fetch_source.py"


rule make_task_table:
    input:
        unpack(lambda w: x.task_sources(w.task)),
    output:
        table=names.TABLE,
    log:
        names.log(names.TABLE),
    benchmark:
        names.benchmark(names.TABLE)
    conda:
        "../envs/data.yaml"
    params:
        spec=lambda w: x.spec("make_task_table", w.items()),
        code=lambda w: x.code("make_task_table", task=w.task),
    script:
        "../scripts/make_task_table.py"


rule shuffle_labels:
    input:
        table=names.TABLE,
    output:
        shuffled=names.SHUFFLED_TABLE,
    log:
        names.log(names.SHUFFLED_TABLE),
    benchmark:
        names.benchmark(names.SHUFFLED_TABLE)
    conda:
        "../envs/data.yaml"
    params:
        spec=lambda w: x.spec("shuffle_labels", w.items()),
        code=lambda w: x.code("shuffle_labels"),
    script:
        "../scripts/shuffle_labels.py"


rule make_control_table:
    input:
        unpack(x.control_input),
    output:
        table=names.CONTROL_TABLE,
    log:
        names.log(names.CONTROL_TABLE),
    benchmark:
        names.benchmark(names.CONTROL_TABLE)
    conda:
        "../envs/data.yaml"
    params:
        spec=lambda w: x.spec("make_control_table", w.items()),
        code=lambda w: x.code("make_control_table"),
    script:
        "../scripts/make_control_table.py"
