# A table of contents: data -> models -> activations -> steers -> choices -> generations -> scores -> metrics ->
# analyses -> figures -> report.
# `snakemake` makes everything that config.yaml asks for; `snakemake lm_steer` the figures of one paper, `snakemake figures`
# all of them.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/steers.smk"
include: "rules/choices.smk"
include: "rules/generations.smk"
include: "rules/scores.smk"
include: "rules/metrics.smk"
include: "rules/analyses.smk"
include: "rules/classifiers.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


rule all:
    input:
        names.REPORT,
        x.metrics,


rule data:
    input:
        expand(names.TABLE, task=x.tasks),


rule models:
    input:
        expand(names.MODEL, model=x.models),


rule steers:
    input:
        x.steers,
        x.readers,


rule metrics:
    input:
        x.metrics,


rule lm_steer:
    input:
        x.figures("lm_steer"),


rule hpr:
    input:
        x.figures("hpr"),


rule slim:
    input:
        x.figures("slim"),


rule cogsteer:
    input:
        x.figures("cogsteer"),


rule latentqa:
    input:
        x.figures("latentqa"),
