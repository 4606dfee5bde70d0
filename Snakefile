# A table of contents: data -> models -> activations -> steers -> generations -> scores -> metrics -> figures -> report.
# `snakemake` makes everything that config.yaml asks for; `snakemake figures` stops at the figures.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/activations.smk"
include: "rules/steers.smk"
include: "rules/generations.smk"
include: "rules/scores.smk"
include: "rules/metrics.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        names.REPORT,


rule data:
    input:
        x.every(names.TABLE),


rule models:
    input:
        x.every(names.MODEL),


rule steers:
    input:
        x.every(names.STEER, method=x.steered),


rule metrics:
    input:
        x.every(names.METRICS),


rule figures:
    input:
        x.every(names.FIGURE),
