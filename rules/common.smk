# The configuration, checked before anything is planned, and the experiment that every rule asks for names and specs.
import sys

from steerlab import experiment
from steerlab.experiment import names

x = experiment.load_or_exit(config)
config.update(
    x.config
)  # scripts find the store and the mirror in it, which change no bytes
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
