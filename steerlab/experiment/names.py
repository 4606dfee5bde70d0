"""Every file name of the workflow, as a pattern with wildcards: the only place that names files."""

RAW = "results/data/raw/{source}/{door}"
TABLE = "results/data/{task}.parquet"
MODEL = "results/models/{model}"
ACTIVATIONS = "results/activations/{model}/{task}/{site}-{positions}.json"
STEER = "results/steers/{model}/{method}/{task}/{seed}"
GENERATIONS = "results/generations/{model}/{method}/{task}/{split}/{seed}.parquet"
TOXICITY_SCORES = "results/scores/{model}/{method}/{task}/{split}/toxicity.parquet"
PERPLEXITY_SCORES = "results/scores/{model}/{method}/{task}/{split}/perplexity.parquet"
METRICS = "results/metrics/{model}/{method}/{task}/{split}.csv"
FIGURE = "results/figures/{model}/{task}.svg"
FIGURE_DATA = "results/figures/{model}/{task}.csv"
CAPTION = "results/figures/{model}/{task}.rst"
REPORT = "results/report/index.html"


def log(pattern: str) -> str:
    """The log file of the job that makes `pattern`."""
    return _beside("logs", pattern) + ".log"


def benchmark(pattern: str) -> str:
    """Snakemake's own time and memory table of the job that makes `pattern`."""
    return _beside("benchmarks", pattern) + ".tsv"


def _beside(folder: str, pattern: str) -> str:
    return pattern.replace("results/", f"results/{folder}/", 1)
