"""The table of reruns: what a change of each key of the configuration, and of each file of the code, makes anew first.

Files are patterns in which * stands for any characters; tests/workflow/test_reruns.py holds a finished run of the tiny
preset to them.
"""

REPORT = ["report/index.html"]  # it prints the whole configuration
CARDS = ["report/cards/tiny-llama/*.md"]
CARDS_BESIDE_SENTIMENT = ["report/cards/*/toxicity.md", "report/cards/*/truthfulness.md"]
AUDIT = ["audit/tiny-llama/lm_steer/toxicity/pairs.csv"]
REPLICATION = ["figures/tiny-llama/replication.svg"]
BESIDE_LATENTQA = [
    "figures/tiny-llama/replication_latentqa.svg"
]  # drawn from whichever of the paper's figures there are
BESIDE_COGSTEER = ["figures/tiny-llama/replication_cogsteer.svg"]
BESIDE_ABLATIONS = [*BESIDE_COGSTEER, "figures/tiny-llama/replication_slim.svg"]  # where variants are left out
CALIBRATION = ["figures/all/calibration.svg"]  # drawn from the files that ship
TOXICITY, SENTIMENT = ["data/toxicity.parquet"], ["data/sentiment.parquet"]
TRUTHFULNESS = ["data/truthfulness.parquet"]
CAPTURED = ["activations/tiny-llama/*/lm_head_input-all.json", "activations/*/truthfulness/*/block_output-answer.json"]
CAPTURED += ["activations/*/truthfulness/test/attention_heads-last.json"]  # what is fitted waits for its leader
READING = ["analyses/tiny-llama/eye_tracking.csv"]
EYE_TRACKING = ["data/eye_tracking.parquet"]
LATENT_READING = ["data/latent_reading.parquet"]
RELATIONS, SYSTEM_PROMPTS = ["data/relations.parquet"], ["data/system_prompts.parquet"]
READERS = [f"steers/tiny-llama/latentqa/readers/{setting}/0" for setting in ("visible", "visible-labels0.5")]
READ_OUT = [f"analyses/tiny-llama/latent_reading/{setting}/0.csv" for setting in ("visible", "visible-labels0.5")]
IDENTIFIED = [f"analyses/tiny-llama/{asked}/visible/0.csv" for asked in ("relations", "system_prompts")]
CONTROL_TABLES = ["data/controls/latentqa/*"]
CONTROLS = ["steers/tiny-llama/latentqa/sentiment/*", "steers/tiny-llama/latentqa/bias/0"]
BIAS = ["data/bias.parquet"]
BIASED = ["analyses/tiny-llama/bias/0.csv"]
INTERPRETED = ["analyses/tiny-llama/lm_steer/toxicity/0"]

LEARNT = ["steers/tiny-llama/lm_steer*"]
LEARNT_ON_TOXICITY = ["steers/tiny-llama/lm_steer*/toxicity/0"]
LEARNT_ON_ALL_TEXTS = ["steers/tiny-llama/lm_steer/*"]

HPR = ["steers/tiny-llama/hpr*/truthfulness/0"]
SLIM = ["steers/tiny-llama/slim*/truthfulness/0"]
# Fits that are told a block wait for the choice of one; those of a given block do not.
COGSTEER = ["steers/tiny-llama/cogsteer/toxicity/0", "steers/tiny-llama/cogsteer_[!a]*/toxicity/0"]
OF_A_BLOCK = ["steers/tiny-llama/cogsteer_block_*/toxicity/0"]
COGSTEER_ON_DEV = "generations/tiny-llama/cogsteer/toxicity/dev/0.parquet"
PLACED = ["generations/tiny-llama/cogsteer_[!a]*/toxicity/*"]  # variants with strengths of their own
COVERAGE = ["analyses/tiny-llama/slim/truthfulness/coverage-0.csv"]
ANSWERED = ["generations/tiny-llama/*/truthfulness/test/0.parquet"]  # the choice goes by given answers alone

ASKED = ["scores/*/base/truthfulness/*/answers/*"]  # answers that are given
HPR_ON_DEV = "scores/*/hpr/truthfulness/dev/answers/*"
ANSWERS = [*ASKED, *(f"scores/*/{method}/truthfulness/dev/answers/*" for method in ("hpr", "slim"))]
UNSTEERED = ["generations/*/base/*", *ASKED]
CANDIDATES = ["generations/tiny-llama/lm_steer/toxicity/dev/0.parquet"]
OF_TOXICITY = [
    *CANDIDATES,
    COGSTEER_ON_DEV,
    *PLACED,
    "generations/*/base/toxicity/*",
]  # the others follow from the choice among the candidates
OF_SENTIMENT = ["generations/*/sentiment/*"]
ON_DEV = [*CANDIDATES, COGSTEER_ON_DEV, "generations/tiny-llama/base/toxicity/dev/0.parquet"]
ON_TEST = [
    f"generations/tiny-llama/{method}/toxicity/test/0.parquet"
    for method in ("base", "lm_steer", "random_lm_steer", "cogsteer", "random_cogsteer")
]
DERIVED_VARIANTS = ("civil_and_positive", "transferred", "cogsteer_and_lm_steer")
DERIVED = [f"steers/*/{name}/*" for name in ("random_*", *DERIVED_VARIANTS)]
SWEPT = [f"generations/tiny-llama/{name}/*" for name in ("lm_steer_all", "lm_steer_30", "civil_and_positive")]
SWEPT += ["generations/tiny-rotated/*", "generations/*/cogsteer_and_lm_steer/*", *PLACED]
SWEPT_ANSWERS = [f"scores/tiny-llama/{of}_*/truthfulness/test/answers/0.parquet" for of in ("hpr", "slim")]


def unpicked(pattern: str) -> list[str]:
    """The pattern in each cell whose settings stand in the configuration: no choice, and so no score, leads to it."""
    cells = ("*/base/toxicity/*", "*/lm_steer/toxicity/dev*", "*/sentiment/*", "*/cogsteer_block_*/toxicity/*")
    return [pattern.format(cell=cell) for cell in cells]


def told_a_block(pattern: str) -> list[str]:
    """The pattern in each further such cell, whose steer follows from the choice that goes by eye movements."""
    cells = ("*/cogsteer/toxicity/dev*", "*/cogsteer_picked/toxicity/*", "*/cogsteer_random/toxicity/*")
    return [pattern.format(cell=cell) for cell in cells]


GLUE_TABLE = ["data/glue/sst2.parquet"]
SWEPT_LAYERS = ["classifiers/tiny-llama/bottleneck/sst2/dev/layers.parquet"]
# The picked layer and another one follow from the sweep.
BENT = [*SWEPT_LAYERS, "classifiers/tiny-llama/bottleneck/sst2/test/all/0.parquet"]
CLASSIFIERS = [*BENT, "classifiers/tiny-llama/head/*"]
PICKED_LAYER = [f"classifiers/tiny-llama/bottleneck/sst2/test/{name}/0.parquet" for name in ("picked", "random")]
COMPARED = ["metrics/tiny-llama/glue/sst2.csv"]
GLUE_CHOICE = ["choices/tiny-llama/glue/*"]

COMPUTE = CAPTURED + UNSTEERED + READING + CLASSIFIERS + OF_A_BLOCK + READERS
TEST_METRICS = ["metrics/*/toxicity/test.csv", "metrics/*/sentiment/test.csv"]
PATTERNS = ("metrics/{cell}", "scores/{cell}perplexity-base*", "scores/{cell}texts*")
MEASURED, PERPLEXITY, TEXTS = (unpicked(pattern) for pattern in PATTERNS)
SWEPT_METRICS = [f"metrics/tiny-llama/{of}_*/truthfulness/test.csv" for of in ("hpr", "slim")]
MEASURED += ["metrics/*/base/truthfulness/*", *(f"metrics/*/{of}/truthfulness/dev.csv" for of in ("hpr", "slim"))]
MEASURED += SWEPT_METRICS
METRICS = MEASURED + told_a_block(PATTERNS[0])
PERPLEXITY += told_a_block(PATTERNS[1])
TEXTS += told_a_block(PATTERNS[2])
OF_ANSWERS = ["scores/*/truthfulness/test/perplexity-base.parquet"]  # of all methods, as the choice is not theirs
OF_BASE_ANSWERS = ["scores/*/base/truthfulness/test/perplexity-base.parquet"]
PROBES = ["analyses/tiny-llama/hpr/truthfulness/probes-0.csv"]
ORDINARY_TEXT = ["analyses/tiny-llama/ordinary_text/truthfulness/0.csv"]
REASONING = ["analyses/tiny-llama/reasoning/*/0.csv"]
DIVERGENCE = ["analyses/tiny-llama/divergence/*/0.csv"]
NORMS = ["analyses/tiny-llama/norms/*/0.csv"]
COMPARISON = ["metrics/tiny-llama/comparison/*.csv"]
COMPARED_UNCHOSEN = ["metrics/tiny-llama/comparison/sentiment.csv"]  # the others follow from choices
OF_COMPARISON = [f"figures/tiny-llama/{name}.svg" for name in ("comparison", "equal_kl")]


def of_task(task: str, patterns: list[str]) -> list[str]:
    """The files of one task among those of all tasks."""
    return [pattern.replace("*", task) for pattern in patterns]


MEASURED_UNCHOSEN = of_task("sentiment", REASONING + DIVERGENCE)

# They take the intervals themselves.
LATENT = [
    f"figures/tiny-llama/{name}.svg"
    for name in ("latent_reading", "read_relations", "read_system_prompts", "control_bias")
]
LATENT += ["figures/all/scale_decoder.svg"]

ANOTHER_SEED = [*(f"steers/tiny-llama/{of}*/truthfulness/1" for of in ("hpr", "slim"))]
ANOTHER_SEED += ["generations/tiny-llama/base/truthfulness/test/1.parquet"]
ANOTHER_SEED += ["metrics/tiny-llama/base/truthfulness/dev.csv"]  # of the same answers, said of both seeds

# Each leaf of the schema: another value, and what is made anew first. None: why there is no row.
LEAVES = {
    "device": ("cuda", COMPUTE),
    "dtype": ("bfloat16", COMPUTE),
    "attention": ("eager", COMPUTE),
    "threads": (2, COMPUTE),
    "mem_mb": (5000, REPORT),
    "runtime": (30, REPORT),
    "store": ("elsewhere", REPORT),
    # What is there keeps the number that it was made with.
    "shards.activations": (2, REPORT),
    "shards.generations": (3, REPORT),
    "shards.scores": (2, REPORT),
    "run.models": (["tiny-llama", "tiny-gpt2"], ["models/tiny-gpt2"]),
    "run.methods": (
        [
            "lm_steer",
            "random_lm_steer",
            "instructed",
            "caa",
            "hpr",
            "random_hpr",
            "slim",
            "random_slim",
            "cogsteer",
            "random_cogsteer",
            "latentqa",
            "random_latentqa",
        ],
        [
            "*/instructed/*",
            "activations/*/toxicity/*block_output*",
            "activations/*/toxicity/*attention_heads*",
            "data/controls/latentqa/toxicity.parquet",
        ],
    ),
    "run.tasks": (
        ["toxicity"],
        [*REPLICATION, *BESIDE_COGSTEER, *BESIDE_LATENTQA, *OF_COMPARISON, "report/cards/*/toxicity.md"],
    ),
    "run.seeds": ([0, 1], ["steers/*/toxicity/1", "generations/tiny-llama/base/toxicity/*/1.parquet"]),
    "run.variants": (
        ["lm_steer_all", "lm_steer_30", "civil_and_positive", "transferred", "cogsteer_and_lm_steer", "lm_steer_100"],
        ["steers/*_100/*", *BESIDE_ABLATIONS],
    ),
    "run.sweep.seeds": ([1], ["steers/*/toxicity/1", "generations/*/base/toxicity/*/1.parquet", *ANOTHER_SEED]),
    "run.sweep.prompts": (2, SWEPT + SWEPT_ANSWERS),
    "run.sweep.samples": (2, [*ON_DEV, *PLACED, "generations/tiny-rotated/base/*"]),
    "data.door": None,  # a mirror is needed
    "data.mirror": (".", REPORT),
    "data.sources": None,  # the sample has no other door
    "models": ({"tiny-llama": {"seed": 1}}, ["models/tiny-llama"]),
    "tasks.toxicity.source": ("nontoxic_prompts", ["data/raw/nontoxic_prompts/url"]),
    "tasks.toxicity.seeds": ([0], REPORT),
    "tasks.toxicity.methods": (
        ["base", "lm_steer", "cogsteer"],
        [*of_task("toxicity", REASONING + DIVERGENCE + NORMS), "figures/tiny-llama/toxicity.svg"],
    ),
    "tasks.toxicity.beside": (["latentqa"], ["data/controls/latentqa/toxicity.parquet"]),
    "tasks.toxicity.prompts.dev": (5, TOXICITY),
    "tasks.toxicity.prompts.test": (5, TOXICITY),
    "tasks.toxicity.comments": (11, TOXICITY),
    "tasks.toxicity.wording": ("Be kind. {text}", TOXICITY),
    "tasks.sentiment.source": ("sentiment_prompts", REPORT),
    "tasks.sentiment.seeds": ([0, 1, 2], ["steers/*/sentiment/2", "generations/*/base/sentiment/test/2.parquet"]),
    "tasks.sentiment.methods": (
        ["base"],
        [*REPLICATION, *BESIDE_LATENTQA, *OF_COMPARISON, *CARDS_BESIDE_SENTIMENT],
    ),
    "tasks.sentiment.beside": (["cogsteer"], ["steers/tiny-llama/cogsteer/sentiment/0"]),
    "tasks.sentiment.prompts.test": (3, SENTIMENT),
    "tasks.sentiment.texts": (20, SENTIMENT),
    "tasks.sentiment.wording": ("Be glad. {text}", SENTIMENT),
    "tasks.truthfulness.source": ("bbq", ["data/raw/bbq/*"]),
    "tasks.truthfulness.seeds": ([0, 1], [*ANOTHER_SEED, *SWEPT_METRICS]),
    "tasks.truthfulness.methods": (
        ["base", "hpr", "slim"],
        [
            *of_task("truthfulness", NORMS),
            *ORDINARY_TEXT,
            *of_task("truthfulness", REASONING + DIVERGENCE),
            "figures/tiny-llama/truthfulness.svg",
        ],
    ),
    "tasks.truthfulness.beside": (["cogsteer"], ["steers/tiny-llama/cogsteer/truthfulness/0"]),
    "tasks.truthfulness.prompts.dev": (2, TRUTHFULNESS),
    "tasks.truthfulness.prompts.test": (3, TRUTHFULNESS),
    "tasks.truthfulness.questions": (4, TRUTHFULNESS),
    "tasks.truthfulness.split": None,  # the published split is of the hub's copy
    "tasks.truthfulness.shares.train": (0.4, TRUTHFULNESS),
    "tasks.truthfulness.shares.dev": (0.1, TRUTHFULNESS),
    "tasks.truthfulness.split_seed": (1, TRUTHFULNESS),
    "tasks.truthfulness.halves": ("order", TRUTHFULNESS),
    "tasks.truthfulness.validation": (0.4, TRUTHFULNESS),
    "tasks.nq_open.methods": (["base"], REPORT),  # tests/unit/test_cells.py: where questions are asked alone
    "tasks.nq_open.prompts.test": (3, REPORT),
    "tasks.nq_open.preamble": ("none", REPORT),
    "tasks.nq_open.wording": ("Be honest. {text}", REPORT),
    "tasks.trivia_qa.methods": (["base"], REPORT),
    "tasks.trivia_qa.prompts.test": (3, REPORT),
    "tasks.trivia_qa.preamble": ("none", REPORT),
    "tasks.trivia_qa.wording": ("Be honest. {text}", REPORT),
    "tasks.truthfulness.training": ("choices", TRUTHFULNESS),
    "tasks.truthfulness.preamble": ("harness", TRUTHFULNESS),
    "tasks.truthfulness.wording": ("Be honest. {text}", TRUTHFULNESS),
    "tasks.bias.seeds": ([0, 1], ["steers/tiny-llama/latentqa/bias/1"]),
    "tasks.bias.methods": (["base", "latentqa"], BIASED),
    "tasks.bias.prompts.test": (5, BIAS),
    "tasks.bias.wording": ("Be fair. {text}", BIAS),
    "activations.batch_rows": (3, CAPTURED + READERS),
    "activations.shard_rows": (7, CAPTURED + READERS),
    "steers.lm_steer.adaptor": ("add", LEARNT + BESIDE_ABLATIONS),
    "steers.lm_steer.rank": (3, LEARNT),
    "steers.lm_steer.eps": (0.002, LEARNT),
    "steers.lm_steer.init": (0.02, LEARNT),
    "steers.lm_steer.values": ([4.0, 1.0], LEARNT),
    "steers.lm_steer.steps": ([2, 3], LEARNT_ON_TOXICITY),
    "steers.lm_steer.batch_texts": (3, LEARNT),
    "steers.lm_steer.max_tokens": (20, LEARNT),
    "steers.lm_steer.learning_rate": (0.02, LEARNT),
    "steers.lm_steer.regularization": (0.1, LEARNT_ON_TOXICITY),
    "steers.lm_steer.texts": (10, LEARNT_ON_ALL_TEXTS),
    "steers.lm_steer.held_out": (0.3, LEARNT),
    "steers.lm_steer.official_code": (True, LEARNT),
    "steers.lm_steer.strengths": ([0.5], CANDIDATES),
    "steers.lm_steer.by_task": (
        {"sentiment": {"strengths": [-1.0, 0.5]}},
        ["generations/*/lm_steer/sentiment/*", *MEASURED_UNCHOSEN],
    ),
    "steers.caa.layer": (1, REPORT),  # tests/unit/test_cells.py: where CAA is run
    "steers.caa.multiplier": (2.0, REPORT),
    "steers.caa.held_out": (0.3, REPORT),
    "steers.caa.strengths": ([1.0], REPORT),
    "steers.hpr.layers": (2, HPR),
    "steers.hpr.angle": ("reflection", ["steers/tiny-llama/hpr/truthfulness/0"]),
    "steers.hpr.angle_net_layers": (2, HPR),
    "steers.hpr.alpha": (0.9, HPR),
    "steers.hpr.epochs": (2, HPR),
    "steers.hpr.learning_rate": (0.001, HPR),
    "steers.hpr.batch_pairs": (8, HPR),
    "steers.hpr.warmup": (0.1, HPR),
    "steers.hpr.clip": (2.0, HPR),
    "steers.hpr.held_out": (0.2, HPR),
    "steers.hpr.official_code": (True, HPR),
    "steers.hpr.strengths": ([0.5], ["scores/tiny-llama/hpr/truthfulness/dev/*"]),
    "steers.hpr.by_task": ({"truthfulness": {"strengths": [0.5]}}, ["scores/tiny-llama/hpr/truthfulness/dev/*"]),
    "steers.caa.by_task": ({"truthfulness": {"layer": 1}}, REPORT),
    "steers.iti.heads": (2, REPORT),  # tests/unit/test_cells.py: where ITI and LoRA are run
    "steers.iti.alpha": (5.0, REPORT),
    "steers.iti.direction": ("probe", REPORT),
    "steers.iti.held_out": (0.3, REPORT),
    "steers.iti.strengths": ([0.5], REPORT),
    "steers.iti.by_task": ({"truthfulness": {"heads": 2}}, REPORT),
    "steers.lora.rank": (2, REPORT),
    "steers.lora.alpha": (8, REPORT),
    "steers.lora.targets": (["q_proj"], REPORT),
    "steers.lora.updates": (3, REPORT),
    "steers.lora.batch_texts": (2, REPORT),
    "steers.lora.learning_rate": (0.01, REPORT),
    "steers.lora.max_tokens": (20, REPORT),
    "steers.lora.held_out": (0.3, REPORT),
    "steers.lora.strengths": ([0.5], REPORT),
    "steers.lora.by_task": ({"truthfulness": {"rank": 2}}, REPORT),
    "steers.slim.kappa": ([5.0], SLIM),
    "steers.slim.alpha": ([0.2], SLIM),
    "steers.slim.bl": (2.5, SLIM),
    "steers.slim.loss": ("l2", SLIM),
    "steers.slim.epochs": (10, SLIM),
    "steers.slim.learning_rate": (0.01, SLIM),
    "steers.slim.layer_sweep": (2, SLIM),
    "steers.slim.layers": (2, ["steers/tiny-llama/slim/truthfulness/0"]),  # a variant has its own
    "steers.slim.held_out": (0.3, SLIM),
    "steers.slim.official_code": (True, SLIM),
    "steers.slim.strengths": ([0.5], ["scores/tiny-llama/slim/truthfulness/dev/*"]),
    "steers.slim.by_task": ({"truthfulness": {"bl": 2.5}}, SLIM),
    "steers.cogsteer.adapter_layer": (0, ["steers/tiny-llama/cogsteer/toxicity/0"]),  # variants have their own
    "steers.cogsteer.contrast_layer": (1, COGSTEER),
    "steers.cogsteer.layer_rule": (
        "peak",
        [f"steers/tiny-llama/{of}/toxicity/0" for of in ("cogsteer", "cogsteer_random")],
    ),
    "steers.cogsteer.reduction": (8, COGSTEER),
    "steers.cogsteer.updates": (3, COGSTEER),
    "steers.cogsteer.batch_blocks": (3, COGSTEER),
    "steers.cogsteer.block_tokens": (12, COGSTEER),
    "steers.cogsteer.learning_rate": (0.02, COGSTEER),
    "steers.cogsteer.weight_decay": (0.1, COGSTEER),
    "steers.cogsteer.evaluations": (3, COGSTEER),
    "steers.cogsteer.judging_blocks": (4, COGSTEER),
    "steers.cogsteer.held_out": (0.3, COGSTEER),
    "steers.cogsteer.official_code": (True, COGSTEER),
    "steers.cogsteer.strengths": ([0.5], [COGSTEER_ON_DEV]),
    "steers.cogsteer.by_task": ({"toxicity": {"updates": 2}}, COGSTEER),
    "steers.latentqa.wish": ("be_gloomy", CONTROL_TABLES),
    "steers.latentqa.nudge": ("Please.", CONTROL_TABLES),
    "steers.latentqa.setting": ("visible", REPORT),  # the reader that it asks already
    "steers.latentqa.rank": (3, CONTROLS),
    "steers.latentqa.alpha": (8, CONTROLS),
    "steers.latentqa.dropout": (0.3, CONTROLS),
    "steers.latentqa.lora_modules": ("qv", CONTROLS),
    "steers.latentqa.layers": ([0], CONTROLS),
    "steers.latentqa.per_layer_loss": (True, CONTROLS),
    "steers.latentqa.samples": (3, CONTROLS),
    "steers.latentqa.with_replies": (False, CONTROLS),
    "steers.latentqa.truncate": (20, CONTROLS),
    "steers.latentqa.train_percent": (50, CONTROLS),
    "steers.latentqa.updates": (3, CONTROLS),
    "steers.latentqa.batch_rows": (2, CONTROLS),
    "steers.latentqa.learning_rate": (0.02, CONTROLS),
    "steers.latentqa.held_out_every": (1, CONTROLS),
    "steers.latentqa.strengths": (
        [0.5],
        ["generations/tiny-llama/latentqa/sentiment/test/*", *MEASURED_UNCHOSEN, *BIASED],
    ),
    "steers.latentqa.by_task": ({"bias": {"updates": 3}}, ["steers/tiny-llama/latentqa/bias/0"]),
    "variants": ({"lm_steer_30": {"texts": 4}}, ["steers/*/lm_steer_30/*"]),
    "choices.perplexity_limit": (2.0, [f"choices/tiny-llama/{of}/toxicity.json" for of in ("lm_steer", "cogsteer")]),
    "generations.toxicity.samples.dev": (2, ON_DEV),
    "generations.toxicity.samples.test": (3, ON_TEST),
    "generations.toxicity.max_new_tokens": (7, OF_TOXICITY),
    "generations.toxicity.min_new_tokens": (5, OF_TOXICITY),
    "generations.toxicity.temperature": (0.9, OF_TOXICITY),
    "generations.toxicity.top_p": (0.8, OF_TOXICITY),
    "generations.toxicity.batch_rows": (6, OF_TOXICITY),
    "generations.sentiment.samples.test": (2, OF_SENTIMENT),
    "generations.sentiment.max_new_tokens": (7, OF_SENTIMENT),
    "generations.sentiment.min_new_tokens": (5, OF_SENTIMENT),
    "generations.sentiment.temperature": (0.9, OF_SENTIMENT),
    "generations.sentiment.top_p": (0.8, OF_SENTIMENT),
    "generations.sentiment.batch_rows": (6, OF_SENTIMENT),
    "generations.truthfulness.samples.test": (2, ANSWERED),
    "generations.truthfulness.questions": (2, ANSWERED),
    "generations.truthfulness.max_new_tokens": (7, ANSWERED),
    "generations.truthfulness.min_new_tokens": (5, ANSWERED),
    "generations.truthfulness.temperature": (0.9, ANSWERED),
    "generations.truthfulness.top_p": (0.8, ANSWERED),
    "generations.truthfulness.batch_rows": (6, ANSWERED),
    "scores.toxicity": (
        ["profanity_check", "toxic_comment_classifier"],
        ["data/raw/toxic_comment_classifier/*", *CALIBRATION],
    ),
    "scores.sentiment": (["vader", "distilbert_sst2"], ["scorers/distilbert_sst2"]),
    "scores.classifiers": ({"distilbert_sst2": {"activation": "softmax"}}, REPORT),  # none is picked; test_cells.py
    # Services are asked in tests/workflow/test_services.py, which has a server.
    "scores.perspective.attributes": (["INSULT"], REPORT),
    "scores.perspective.languages": (["de"], REPORT),
    "scores.perspective.quota": (2.0, REPORT),
    "scores.perspective.address": ("http://localhost", REPORT),
    "scores.moderation.base_url": ("http://localhost/v1", REPORT),
    "scores.moderation.model": ("other", REPORT),
    "scores.moderation.categories": (["violence"], REPORT),
    "scores.moderation.quota": (2.0, REPORT),
    "scores.answers.tokens_a_batch": (128, ANSWERS + SWEPT_ANSWERS + BIASED),
    "scores.answers.judges.truthful": ("tiny-gpt2", ["models/tiny-gpt2"]),
    "scores.answers.judges.informative": ("tiny-gpt2", ["models/tiny-gpt2"]),
    "scores.perplexity.judges": (["base", "tiny-gpt2"], ["models/tiny-gpt2"]),
    "scores.perplexity.tokens_a_batch": (
        128,
        [
            *PERPLEXITY,
            *OF_ANSWERS,
            *ORDINARY_TEXT,
            *of_task("sentiment", DIVERGENCE),
            *of_task("truthfulness", DIVERGENCE),
        ],
    ),
    "analyses.interpretation.directions": (2, INTERPRETED),
    "analyses.interpretation.words": (3, INTERPRETED),
    "analyses.interpretation.value": (4.0, INTERPRETED),
    "analyses.interpretation.texts": (3, INTERPRETED),
    "analyses.ordinary_text.texts": (3, ORDINARY_TEXT),
    "analyses.ordinary_text.tokens": (64, ORDINARY_TEXT),
    "analyses.reasoning.questions": (3, REASONING),
    "analyses.reasoning.seeds": (2, REPORT),  # there is one
    "analyses.reasoning.batch_rows": (8, REASONING),
    "analyses.divergence.prompts": (2, DIVERGENCE),
    "analyses.speed.tokens": (2, ["analyses/tiny-llama/speed/*.csv"]),
    "analyses.speed.rows": (5, REPORT),  # the tiny preset measures no time
    "analyses.speed.turns": (4, REPORT),
    "comparison.kl": (0.5, COMPARISON),
    "eye_tracking.corpora": (["provo"], EYE_TRACKING),
    "eye_tracking.sentences": (5, EYE_TRACKING),
    "eye_tracking.batch_sentences": (3, READING),
    "eye_tracking.permutations": (49, READING),
    "latent_reading.corpora": None,  # another corpus needs a mirror
    "latent_reading.kinds": (["control"], LATENT_READING),
    "latent_reading.questions": (2, LATENT_READING),
    "latent_reading.crossed": (1, LATENT_READING),
    "latent_reading.shares.dev_labels": (0.2, LATENT_READING),
    "latent_reading.shares.test_labels": (0.1, LATENT_READING),
    "latent_reading.shares.dev_texts": (0.2, LATENT_READING),
    "latent_reading.shares.test_texts": (0.1, LATENT_READING),
    "latent_reading.rows.train": (20, LATENT_READING),
    "latent_reading.rows.dev": (3, LATENT_READING),
    "latent_reading.rows.test": (5, LATENT_READING),
    "relations.corpora": ([], BESIDE_LATENTQA),
    "relations.facts": (2, RELATIONS),
    "relations.mentions": (2, RELATIONS),
    "relations.candidates": (2, RELATIONS),
    "system_prompts.corpora": ([], REPORT),
    "system_prompts.items": (2, SYSTEM_PROMPTS),
    "system_prompts.candidates": (2, SYSTEM_PROMPTS),
    "system_prompts.reply_tokens": (5, IDENTIFIED[1:]),
    "latentqa.settings": (["visible", "masked"], ["steers/tiny-llama/latentqa/readers/masked/0"]),
    "latentqa.seeds": ([0, 1], ["steers/tiny-llama/latentqa/readers/*/1"]),
    "latentqa.batch_rows": (3, READ_OUT + IDENTIFIED),
    "latentqa.max_new_tokens": (3, READ_OUT + IDENTIFIED),
    "latentqa.scaling": ([{"labels": 0.25}], ["steers/tiny-llama/latentqa/readers/visible-labels0.25/0"]),
    "latentqa.questions": (["Who?"], REPORT),  # of the command line
    "latentqa.prompts": (["Well?"], REPORT),  # likewise
    "latentqa.checkpoint_every": (2, REPORT),
    "latentqa.processes": (2, READERS),
    "latentqa.sharding": ("fsdp", READERS),
    "latentqa.tracker": ("trackio", REPORT),
    "latentqa.reader.rank": (3, READERS),
    "latentqa.reader.alpha": (8, READERS),
    "latentqa.reader.dropout": (0.1, READERS),
    "latentqa.reader.targets": (["q_proj"], READERS),
    "latentqa.reader.changed_blocks": ("after_write_layer", READERS),
    "latentqa.reader.read_layer": (1, READERS),
    "latentqa.reader.write_layer": (1, READERS),
    "latentqa.reader.normalise": ("zscore", READERS),
    "latentqa.reader.answer_role": ("reflect", READERS),
    "latentqa.reader.last_answer_only": (False, READERS),
    "latentqa.reader.official_code": (True, READERS),
    "latentqa.reader.shift_position_ids": (True, READERS),
    "latentqa.reader.updates": (2, READERS),
    "latentqa.reader.batch_rows": (3, READERS),
    "latentqa.reader.accumulation": (2, READERS),
    "latentqa.reader.learning_rate": (0.01, READERS),
    "latentqa.reader.weight_decay": (0.1, READERS),
    "latentqa.reader.max_tokens": (400, READERS),
    "latentqa.reader.held_out": (0.2, READERS),
    "latentqa.reader.held_out_every": (3, READERS),
    "latentqa.reader.autocast": (True, READERS),
    "latentqa.reader.checkpointed_activations": (True, READERS),
    "latentqa.reader.keep": ("last", READERS),
    "latentqa.reader.by_setting": ({"visible": {"rank": 3}}, READERS),
    "glue.tasks": (["sst2", "rte"], ["data/raw/glue_rte/hub"]),
    "glue.interventions": (["bottleneck", "prefix"], ["classifiers/tiny-llama/prefix/sst2/*"]),
    "glue.layers": (["picked", "random", "all", 1], ["classifiers/tiny-llama/bottleneck/sst2/test/1/0.parquet"]),
    "glue.layer_rule": ("validation", PICKED_LAYER),
    "glue.sweep_layers": ([0], SWEPT_LAYERS),
    "glue.sweep_seeds": ([1], SWEPT_LAYERS),
    "glue.sweep_rows": (8, SWEPT_LAYERS),
    "glue.seeds": ([0, 1], ["classifiers/tiny-llama/*/sst2/test/*/1.parquet"]),
    "glue.train_rows": (12, GLUE_TABLE),
    "glue.dev_rows": (5, GLUE_TABLE),
    "glue.test_rows": (7, GLUE_TABLE),
    "glue.batch_rows": (4, CLASSIFIERS),
    "glue.epochs": (2, CLASSIFIERS),
    "glue.warmup": (0.2, CLASSIFIERS),
    "glue.weight_decay": (0.1, CLASSIFIERS),
    "glue.max_tokens": (20, CLASSIFIERS),
    "glue.measured_steps": (2, ["analyses/tiny-llama/glue/sst2/cost.csv"]),
    "glue.head.learning_rate": (0.01, ["classifiers/tiny-llama/head/*"]),
    "glue.bottleneck.reduction": (4, BENT),
    "glue.bottleneck.learning_rate": (0.01, BENT),
    "glue.prefix.length": (3, REPORT),  # neither is run: tests/unit/test_classifiers.py
    "glue.prefix.hidden": (8, REPORT),
    "glue.prefix.learning_rate": (0.01, REPORT),
    "glue.adaption_prompt.length": (3, REPORT),
    "glue.adaption_prompt.learning_rate": (0.01, REPORT),
    "metrics.resamples": (60, MEASURED + PROBES + COVERAGE + READING + COMPARED + LATENT + COMPARED_UNCHOSEN),
    "metrics.confidence": (0.9, MEASURED + PROBES + COVERAGE + READING + COMPARED + LATENT + COMPARED_UNCHOSEN),
    "audit.pairs": (5, AUDIT),
    "audit.seed": (1, AUDIT),
    "audit.sheets": (["config.yaml"], ["audit/tiny-llama/lm_steer/toxicity/agreement.csv"]),
}
# What must change with a leaf, so that the configuration can be run.
WITH = {
    "run.sweep.samples": {"generations": {"toxicity": {"samples": {"dev": 2}}}},
    "run.tasks": {"run": {"variants": ["lm_steer_all", "lm_steer_30", "transferred", "cogsteer_and_lm_steer"]}},
    "run.sweep.seeds": {"run": {"seeds": [0, 1]}, "tasks": {"truthfulness": {"seeds": [0, 1]}}},
    "run.methods": {
        "tasks": {"toxicity": {"methods": None}},
        "steers": {"slim": {"by_task": {"toxicity": {"kappa": [5.0]}}}},
    },
    "latentqa.processes": {"latentqa": {"reader": {"accumulation": 2}}},
    "latentqa.sharding": {"latentqa": {"processes": 2, "reader": {"accumulation": 2}}},
    "steers.slim.alpha": {"steers": {"slim": {"kappa": None}}},
    "steers.lm_steer.adaptor": {"run": {"variants": ["lm_steer_all", "lm_steer_30", "civil_and_positive"]}},
}


def figures(*names: str) -> list[str]:
    return [f"figures/*/{name}.svg" for name in names]


# All figures but those that set others' numbers beside a paper's, which wait for these.
EVERY = ["figures/*/[!r]*.svg", *figures("replication", "rea*")]
CHOSEN = (("lm_steer", "toxicity"), ("cogsteer", "toxicity"), ("hpr", "truthfulness"), ("slim", "truthfulness"))
BY_LAYER = ["choices/tiny-llama/eye_tracking.json"]  # what sweeps choose follows from what they train
ASKED_OF_READERS = ("read_relations", "read_system_prompts")
OF_READERS = ("latent_reading", "reader_training", "scale_decoder", *ASKED_OF_READERS)
# Of the figures that are drawn by what calibrated scores need, those whose inputs do not change.
CALIBRATED = ("probe_accuracy", "slim_coverage", "eye_tracking", "glue", "control_bias", *OF_READERS)
# A file of the code: what is made anew first.
MODULES = {
    "steerlab/sites.py": COMPUTE,
    "steerlab/classifiers.py": CLASSIFIERS,
    "steerlab/methods/attention_prefix.py": CLASSIFIERS,
    "steerlab/data/glue.py": GLUE_TABLE,
    "steerlab/metrics/glue.py": GLUE_CHOICE,
    "steerlab/models.py": ["models/tiny-llama"],
    "steerlab/activations.py": CAPTURED + COGSTEER + READERS,
    "steerlab/losses.py": LEARNT + COGSTEER + READERS,
    "steerlab/methods/caa.py": [],
    "steerlab/methods/lm_steer.py": LEARNT,
    "steerlab/methods/random_direction.py": ["steers/*/random_*/*"],
    "steerlab/methods/hpr.py": HPR,
    "steerlab/methods/slim.py": SLIM,
    "steerlab/methods/slim_transport.py": SLIM,
    "steerlab/analyses/coverage.py": COVERAGE,
    "steerlab/methods/cogsteer.py": COGSTEER,
    "steerlab/methods/cogsteer_official.py": COGSTEER,
    "steerlab/streams.py": COGSTEER,
    "steerlab/language_modelling.py": COGSTEER + READERS,
    "steerlab/latent_reads.py": READERS,
    "steerlab/processes.py": READERS,
    "steerlab/methods/latentqa.py": READERS,
    "steerlab/methods/latentqa_control.py": CONTROLS,
    "steerlab/data/control_rows.py": CONTROL_TABLES,
    "steerlab/tasks/control.py": CONTROL_TABLES,
    "steerlab/tasks/bias.py": BIAS,
    "steerlab/analyses/bias.py": BIASED,
    "steerlab/figures/control_sentiment.py": figures("control_sentiment"),
    "steerlab/figures/control_bias.py": figures("control_bias"),
    "steerlab/analyses/latent_reading.py": READ_OUT + IDENTIFIED,
    "steerlab/analyses/identification.py": IDENTIFIED,
    "steerlab/metrics/identification.py": figures(*ASKED_OF_READERS),
    "steerlab/metrics/reader_scaling.py": figures("scale_decoder"),
    "steerlab/figures/identification.py": figures(*ASKED_OF_READERS),
    "steerlab/figures/scale_decoder.py": figures("scale_decoder"),
    "steerlab/metrics/latent_reading.py": figures(*OF_READERS),
    "steerlab/figures/latent_reading.py": figures(*OF_READERS),
    "steerlab/figures/variants.py": figures("cogsteer_variants"),
    "steerlab/figures/layer_sweep.py": figures("cogsteer_layers"),
    "steerlab/methods/settings.py": [
        *OF_TOXICITY, *OF_SENTIMENT, *ANSWERS, *SWEPT_ANSWERS, "generations/*/base/truthfulness/*",
        *BIASED, *of_task("sentiment", REASONING),
    ],
    "steerlab/tasks/truthfulness.py": TRUTHFULNESS,
    "steerlab/scores/answers.py": ANSWERS + SWEPT_ANSWERS,
    "steerlab/methods/composed.py": ["steers/*/cogsteer_and_lm_steer/*"],
    "steerlab/methods/lm_steer_transfer.py": ["steers/tiny-rotated/transferred/*"],
    "steerlab/decoding.py": [*OF_TOXICITY, *OF_SENTIMENT, *ANSWERED, "analyses/*/norms/truthfulness/*"],
    "steerlab/generations.py": [*OF_TOXICITY, *OF_SENTIMENT, *ANSWERED, "analyses/*/norms/truthfulness/*"],
    "steerlab/choices.py": [f"choices/tiny-llama/{of}/{task}.json" for of, task in CHOSEN],
    "steerlab/layer_choices.py": [*BY_LAYER, *OF_A_BLOCK, *CLASSIFIERS],
    "steerlab/scores/perplexity.py": PERPLEXITY + OF_ANSWERS,
    "steerlab/likelihood.py": [*SLIM, *PERPLEXITY, *ASKED, HPR_ON_DEV, *SWEPT_ANSWERS[:1], *OF_BASE_ANSWERS, *BIASED],
    "steerlab/scores/profanity_check.py": TEXTS,
    "steerlab/scores/vader.py": TEXTS,
    "steerlab/scores/toxic_comment_classifier.py": [],
    "steerlab/scores/classifier.py": [],
    "steerlab/scores/classifier_files.py": [],
    "steerlab/tasks/toxicity.py": TOXICITY,
    "steerlab/tasks/sentiment.py": SENTIMENT,
    "steerlab/metrics/bootstrap.py": [
        *MEASURED, *CALIBRATION, *PROBES, *COVERAGE, *READING, *GLUE_CHOICE, *figures(*OF_READERS, "control_bias"),
        *COMPARED_UNCHOSEN,
    ],
    "steerlab/metrics/ranks.py": [*READING, *COMPARED_UNCHOSEN, "metrics/tiny-llama/comparison/truthfulness.csv"],
    "steerlab/analyses/word_states.py": READING,
    "steerlab/tasks/eye_tracking.py": EYE_TRACKING,
    "steerlab/tasks/latent_reading.py": LATENT_READING,
    "steerlab/tasks/relations.py": RELATIONS,
    "steerlab/tasks/system_prompts.py": SYSTEM_PROMPTS,
    "steerlab/tasks/candidates.py": RELATIONS + SYSTEM_PROMPTS,
    "steerlab/metrics/continuations.py": METRICS + COMPARED_UNCHOSEN,
    "steerlab/metrics/grid.py": [],
    "steerlab/analyses/interpretation.py": INTERPRETED,
    "steerlab/analyses/reading.py": INTERPRETED,
    "steerlab/analyses/ordinary_text.py": ORDINARY_TEXT,
    "steerlab/analyses/reasoning.py": REASONING,
    "steerlab/analyses/steered.py": ["analyses/*/norms/*", *ORDINARY_TEXT, *REASONING, *DIVERGENCE, *BIASED],
    "steerlab/analyses/divergence.py": DIVERGENCE,
    "steerlab/analyses/speed.py": [],
    "steerlab/metrics/comparison.py": COMPARISON,
    "steerlab/figures/comparison.py": figures("comparison", "equal_kl"),
    "steerlab/figures/equal_kl.py": figures("equal_kl"),
    "scripts/compare_methods.py": COMPARISON,
    "steerlab/harness.py": REASONING,
    "steerlab/metrics/calibrated.py": [*METRICS, *CALIBRATION, *figures(*CALIBRATED), *COMPARED_UNCHOSEN],
    "steerlab/analyses/calibration.py": [],
    "steerlab/figures/toxicity.py": figures("toxicity"),
    "steerlab/figures/transfer.py": figures("transfer"),
    "steerlab/figures/calibration.py": CALIBRATION,
    "steerlab/figures/ordinary_text.py": figures("ordinary_text"),
    "steerlab/figures/reasoning.py": figures("reasoning"),
    "steerlab/figures/inputs.py": EVERY,
    "steerlab/figures/style.py": [*EVERY, *CARDS],
    "steerlab/parameters.py": ["analyses/tiny-llama/lm_steer/toxicity/parameters-0.csv"],
    "steerlab/metrics/audit.py": AUDIT,
    "steerlab/reference/lm_steer.yaml": figures("replication"),
    "steerlab/reference/hpr.yaml": figures("replication_hpr"),
    "steerlab/reference/slim.yaml": figures("replication_slim"),
    "steerlab/reference/latentqa.yaml": figures("replication_latentqa"),
    "steerlab/reference/cogsteer.yaml": figures("replication_cogsteer"),
    "steerlab/figures/side_by_side.py": figures("replication*"),
    "steerlab/figures/replications.py": figures("replication_*"),
    "steerlab/reference/calibration/maps.json": TEST_METRICS,
    "steerlab/reference/calibration/calibration.csv": CALIBRATION,
    "steerlab/reference/calibration/reliability.csv": CALIBRATION,
    "scripts/calibrate_scorers.py": [],
    "captions/spectrum.rst": figures("spectrum"),
    "steerlab/report/card.py": CARDS,
    "steerlab/report/saved_steers.py": CARDS,
    "steerlab/report/markdown.py": CARDS,
    "steerlab/report/card.md.j2": CARDS,
    "steerlab/report/card.html.j2": CARDS,
    "steerlab/reference/papers.yaml": REPORT,
    "steerlab/report/cards.py": REPORT,
    "steerlab/report/page.py": REPORT,
    "steerlab/report/page.html.j2": REPORT,
    "steerlab/progress.py": [],
    "steerlab/job.py": [],
    "steerlab/experiment/registry.py": [],
    "steerlab/experiment/cells.py": [],
    "scripts/score_texts.py": TEXTS,
    "scripts/derive_steer.py": DERIVED,
}  # fmt: skip
