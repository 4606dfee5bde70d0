# The configuration, checked before anything is planned, and the experiment that every rule asks for names and specs.
import sys

from steerlab import experiment
from steerlab.experiment import names

x = experiment.load_or_exit(config)
# Scripts find the store, the mirror and what is captured together in it, which change no bytes.
config.update(x.config | {"together": x.together})
print(x.summary, file=sys.stderr)


wildcard_constraints:
    model=r"[^/]+",
    method=r"[^/]+",
    task=r"[^/]+",
    split="dev|test",
    part="fitted|test",
    setting=r"(visible|masked)(-labels[\d.]+)?(-rank\d+)?",
    seed=r"\d+",
    source=r"[^/]+",
    door=r"[^/]+",
    site=r"\w+",
    positions="last|all|answer",
    scorer=r"\w+",
    service=r"\w+",
    judge=r"[^/]+",
    measure=r"\w+",
    figure=r"\w+",
    intervention=r"\w+",
    layers=r"\w+",
    shard=r"\d+",
    shards=r"\d+",
