"""Bytes that each job of a plan leaves behind, in the store and in results; small files by their measured mean."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

from steerlab.data import sources
from steerlab.experiment import cells, latentqa, lookups, plan
from steerlab.experiment.work import (
    READ,
    TABLE,
    Job,
    Size,
    labelled_texts,
    longer,
    reference,
    rows_read,
    size_of,
    texts_of,
)

if TYPE_CHECKING:
    from steerlab.experiment import Experiment

Bytes = dict[str, float]  # by "store" and what lies there, or "results" and the stage

DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOAT32 = 4  # bytes; steers are kept in it
SMALL = TABLE["bytes"]


def of_job(x: "Experiment", job: Job) -> Bytes:
    """What a job leaves, its log, benchmark and sidecar with it. A model of unknown size is taken for the reference."""
    left = _LEFT.get(job.rule, lambda x, w: {"results, others": SMALL.get(job.rule, SMALL["other"])})
    found = left(x, SimpleNamespace(**job.wildcards))
    return found | {"results, others": found.get("results, others", 0) + SMALL["job"]}


def _size(x: "Experiment", w: SimpleNamespace) -> Size:
    return size_of(x.config, w.model) or reference()


def _states(x: "Experiment", w: SimpleNamespace, tokens: float, layers: int) -> float:
    return tokens * layers * _size(x, w).hidden * DTYPES[x.config["dtype"]]


def _activations(x: "Experiment", w: SimpleNamespace) -> Bytes:
    texts, here = labelled_texts(x, w.task, w.part), texts_of(w.task)
    kept = {"last": 1, "all": here["text"], "answer": here.get("answer", here["text"])}[w.positions]
    kept *= 1 if w.positions == "last" else longer(x.config, w.model)
    layers = _size(x, w).layers if w.site in ("block_output", "attention_heads") else 1
    headers = texts / x.config["activations"]["shard_rows"] * SMALL["header"]
    return {"store, activations": _states(x, w, texts * kept, layers) + headers, "results, others": SMALL["other"]}


def _continuations(x: "Experiment", w: SimpleNamespace) -> Bytes:
    cell = x.cell(w)
    texts = plan.count(x.config, cell).continuations / len(cell.seeds)
    batches = texts / min(cells.drawn_of(x.config, w.task)["batch_rows"], texts)
    return {
        "store, generations": batches * SMALL["shard"] + texts * SMALL["text"],
        "results, generations": SMALL["table"] + texts * SMALL["text"],
    }


def _scores(x: "Experiment", w: SimpleNamespace) -> Bytes:
    """A shard is some ten prompts of every setting."""
    cell = x.cell(w)
    prompts = plan.prompts(x.config, w.task, w.split, cell.prompts)
    rows = max(plan.count(x.config, cell).continuations, prompts)
    return {
        "store, scores": prompts / 10 * SMALL["shard"],
        "results, scores": SMALL["table"] + rows * SMALL["score"],
    }


def _model(x: "Experiment", w: SimpleNamespace) -> Bytes:
    """Weights as they lie in the repository: large ones mostly have 2 bytes; a rotated model has a head of its own."""
    size, definition = _size(x, w), x.config["models"][w.model]
    kind = definition["kind"]
    each = 2 if kind in ("hub", "folder") and size.parameters > 2e9 else FLOAT32
    own_head = size.hidden * size.vocabulary if kind == "rotated" else 0
    tokenizer = SMALL["table"] if longer(x.config, w.model) > 1 else SMALL["tokenizer"]
    return {"results, models": (size.parameters + own_head) * each + tokenizer}


def _source(x: "Experiment", w: SimpleNamespace) -> Bytes:
    files = sources.table()[w.source].doors[w.door].files
    return {"results, data": sum(file.bytes or 0 for file in files)}


def _steer(x: "Experiment", w: SimpleNamespace) -> Bytes:
    here, size = x.instance(w.method, w.task), _size(x, w)
    _, taken = lookups.derivation(x.config, w.model, w.method, w.task)
    given = [cells.instance(x.config, of, task).given | here.given for of, task in taken]
    weights = sum(_weights(of, each, size) for (of, _), each in zip(taken, given))
    checkpoints = {"store, checkpoints": 4 * weights * FLOAT32} if here.of == "latentqa" else {}
    return checkpoints | {"results, steers": weights * FLOAT32 + SMALL["table"]}


def _weights(of: str, given: dict, size: Size) -> float:
    """How many numbers a steer of a method has."""
    match of:
        case "lm_steer":
            rank = min(1000, size.hidden // 4) if given["rank"] is None else given["rank"]
            wide = size.hidden / 2 if rank == "full" else rank
            return len(given["values"]) * 2 * wide * size.hidden * len(given["steps"])
        case "hpr":
            depth = given["angle_net_layers"] if given["angle"] == "net" else 0
            return given["layers"] * size.hidden * (1 + depth * size.hidden)
        case "lora":
            return 20 / 3 * given["rank"] * size.hidden * size.layers
        case "latentqa":
            return 17.7 * given["rank"] * size.hidden * size.layers
        case "cogsteer":
            blocks = size.layers if given["adapter_layer"] == "all" else 1
            return 4 * blocks * size.hidden**2 / given["reduction"]
        case "slim":
            return given["layers"] * 64 * size.hidden
        case "iti":
            return given["heads"] * 64
    return size.hidden


def _reader(x: "Experiment", w: SimpleNamespace) -> Bytes:
    weights = _weights("latentqa", latentqa.hyperparameters(x.config, w.setting), _size(x, w)) * FLOAT32
    rows = rows_read(x.config, "train", "dev", "test")
    states = _states(x, w, rows * READ["dialog"] * longer(x.config, w.model), 1)
    left = {"store, checkpoints": 3 * weights + states, "results, steers": weights + SMALL["table"]}
    return left if w.setting in x.config["latentqa"]["settings"] else left | {"store, checkpoints": 3 * weights}


def _interpretation(x: "Experiment", w: SimpleNamespace) -> Bytes:
    return {"results, others": _size(x, w).vocabulary * SMALL["word"]}


_LEFT: dict[str, Callable[["Experiment", SimpleNamespace], Bytes]] = {
    "capture_activations": _activations,
    "generate_continuations": _continuations,
    "score_texts": _scores,
    "score_texts_by_service": _scores,
    "score_perplexity": _scores,
    "score_answers": _scores,
    "score_references": _scores,
    "judge_answers": _scores,
    "prepare_model": _model,
    "fetch_source": _source,
    "train_steer": _steer,
    "derive_steer": _steer,
    "train_reader": _reader,
    "interpret_steer": _interpretation,
}
