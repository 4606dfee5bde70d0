"""Every file name of the workflow, as a pattern with wildcards: the only place that names files.

{method} is a method or a variant of one; {judge} the model whose perplexity is taken, "base" for the unsteered model;
{intervention} what bends a frozen model for a classifier, in the blocks of {layers}: picked, random, all, none or one;
{setting} what a decoder of states is shown, those of "visible" or of "masked" dialogs, and if it was trained on a share
of the labels or with another rank, these: "visible-labels0.5-rank4";
{shard} one of {shards} jobs that compute a file's batches;
{part} the labelled texts that a fit sees, "fitted", or those of the test split, "test".
"""

RAW = "results/data/raw/{source}/{door}"
TABLE = "results/data/{task}.parquet"
SHUFFLED_TABLE = "results/data/shuffled/{task}.parquet"
CONTROL_TABLE = "results/data/controls/{method}/{task}.parquet"
MODEL = "results/models/{model}"
SCORER = "results/scorers/{scorer}"
ACTIVATIONS = "results/activations/{model}/{task}/{part}/{site}-{positions}.json"
STEER = "results/steers/{model}/{method}/{task}/{seed}"
CONTROL = "results/controls/{model}/{wish}"  # of the command line alone
READER = "results/steers/{model}/latentqa/readers/{setting}/{seed}"
CHOICE = "results/choices/{model}/{method}/{task}.json"
SWEEP_CHOICE = "results/choices/{model}/{method}/layers/{task}.json"
READING_CHOICE = "results/choices/{model}/eye_tracking.json"
GENERATIONS = "results/generations/{model}/{method}/{task}/{split}/{seed}.parquet"
TEXT_SCORES = "results/scores/{model}/{method}/{task}/{split}/texts.parquet"
SERVICE_SCORES = "results/scores/{model}/{method}/{task}/{split}/texts-{service}.parquet"
ANSWER_SCORES = "results/scores/{model}/{method}/{task}/{split}/answers/{seed}.parquet"
REFERENCE_SCORES = "results/scores/{model}/{method}/{task}/{split}/references.parquet"
JUDGEMENTS = "results/scores/{model}/{method}/{task}/{split}/judged-{measure}.parquet"
PERPLEXITY_SCORES = "results/scores/{model}/{method}/{task}/{split}/perplexity-{judge}.parquet"
METRICS = "results/metrics/{model}/{method}/{task}/{split}.csv"
COMPARISON = "results/metrics/{model}/comparison/{task}.csv"
COMPARED_PAIRS = "results/metrics/{model}/comparison/pairs/{task}.csv"
INTERPRETATION = "results/analyses/{model}/{method}/{task}/{seed}"
PROBES = "results/analyses/{model}/{method}/{task}/probes-{seed}.csv"
COVERAGE = "results/analyses/{model}/{method}/{task}/coverage-{seed}.csv"
PARAMETERS = "results/analyses/{model}/{method}/{task}/parameters-{seed}.csv"
NORMS = "results/analyses/{model}/norms/{task}/{seed}.csv"
ORDINARY_TEXT = "results/analyses/{model}/ordinary_text/{task}/{seed}.csv"
REASONING = "results/analyses/{model}/reasoning/{task}/{seed}.csv"
DIVERGENCE = "results/analyses/{model}/divergence/{task}/{seed}.csv"
SPEED = "results/analyses/{model}/speed/{task}.csv"
EYE_TRACKING = "results/analyses/{model}/eye_tracking.csv"
LATENT_READING = "results/analyses/{model}/latent_reading/{setting}/{seed}.csv"
RELATIONS = "results/analyses/{model}/relations/{setting}/{seed}.csv"
SYSTEM_PROMPTS = "results/analyses/{model}/system_prompts/{setting}/{seed}.csv"
BIAS = "results/analyses/{model}/bias/{seed}.csv"
OFFICIAL_GRID = "results/analyses/official_grid.csv"
CALIBRATION = "results/analyses/calibration/calibration.csv"
RELIABILITY = "results/analyses/calibration/reliability.csv"
CALIBRATION_MAPS = "results/analyses/calibration/maps.json"
FIGURE = "results/figures/{model}/{figure}.svg"
FIGURE_PDF = "results/figures/{model}/{figure}.pdf"
FIGURE_DATA = "results/figures/{model}/{figure}.csv"
CAPTION = "results/figures/{model}/{figure}.rst"
GLUE_TABLE = "results/data/glue/{task}.parquet"
LAYER_SWEEP = "results/classifiers/{model}/{intervention}/{task}/dev/layers.parquet"
GLUE_CHOICE = "results/choices/{model}/glue/{task}/{intervention}.json"
CLASSIFIER = "results/classifiers/{model}/{intervention}/{task}/test/{layers}/{seed}.parquet"
LAYER_COMPARISON = "results/metrics/{model}/glue/{task}.csv"
AUDIT_PAIRS = "results/audit/{model}/{method}/{task}/pairs.csv"
AUDIT_KEY = "results/audit/{model}/{method}/{task}/key.csv"
AUDIT = "results/audit/{model}/{method}/{task}/agreement.csv"
TRAINING_COST = "results/analyses/{model}/glue/{task}/cost.csv"
CARD = "results/report/cards/{model}/{method}/{task}.md"
CARD_PAGE = "results/report/cards/{model}/{method}/{task}.html"
REPORT = "results/report/index.html"


def log(pattern: str) -> str:
    """The log file of the job that makes `pattern`."""
    return _beside("logs", pattern) + ".log"


def benchmark(pattern: str) -> str:
    """Snakemake's own time and memory table of the job that makes `pattern`."""
    return _beside("benchmarks", pattern) + ".tsv"


def shard(pattern: str) -> str:
    """The share of `pattern` that one of several jobs makes: {shard}, from 1, of {shards}; removed once gathered."""
    return _beside("shards/{shard}-of-{shards}", pattern)


def sidecar(pattern: str) -> str:
    """How the job that made `pattern` made it."""
    return pattern + ".run.json"


def _beside(folder: str, pattern: str) -> str:
    return pattern.replace("results/", f"results/{folder}/", 1)
