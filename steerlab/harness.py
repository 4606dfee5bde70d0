"""Steered models in EleutherAI's lm-evaluation-harness: a model type `steerlab`, and tasks over our own tables.

The harness chooses, tokenises and scores as it does for any transformers model. What it does not know, and a steer that
begins at the last prompt token must know, is where each row's prompt ends: that alone is told to `sites` here.
Importing this module registers the model type; it needs the package lm_eval.
"""

import json
import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from lm_eval import evaluator
from lm_eval.api.registry import register_model
from lm_eval.models import huggingface
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, make_table

from steerlab import methods, sites
from steerlab.data import tables
from steerlab.models import ModelHandle
from steerlab.progress import progress

Request = tuple[tuple[str, str] | None, list[int], list[int]]  # the two texts, tokens of the context, and of the rest

HFLM: Any = huggingface.HFLM  # the harness' decorators hide what they decorate from type checkers

TASKS = ("truthfulness_mc1", "truthfulness_mc2")


class SteerlabLM(HFLM):
    """A prepared model, steered for as long as this object lives or until `close`."""

    def __init__(
        self,
        pretrained: str,
        steer: str | None = None,
        strength: float = 1.0,
        *,
        device: str | None = None,
        dtype: str = "float32",
        attention: str = "sdpa",
        batch_size: int | str | None = 1,
        **more: Any,
    ):
        """pretrained: a prepared model folder. steer: a steer's folder, None for the model as it is; one trained in
        steps is taken as it is after the last. strength: see `Steer`. device, dtype, attention: see `ModelHandle`.
        more: HFLM's other arguments, of which those that say how a model is loaded have no effect.

        Raises ModelError, SteerMismatch, and ValueError for a steer, strength or batch size that cannot be used.
        """
        if not str(batch_size or 1).isdecimal():
            raise ValueError(f"batch_size is {batch_size!r}; give the rows of a batch as a number")
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "cpu"  # the harness' own command asks for cuda:0 where nobody named a device, and HFLM does this
        handle = ModelHandle(Path(pretrained), device=device, dtype=dtype, attention=attention)
        fitted = methods.load(Path(steer), handle) if steer else None
        # One row of logits may not serve two requests of the same tokens: their prompts may end at different tokens.
        with _without_warnings():
            tokenizer = handle.info.tokenizer
            super().__init__(handle.load(), tokenizer=tokenizer, batch_size=batch_size or 1, logits_cache=False, **more)
        self._about = {"name": handle.info.name, "revision": handle.info.revision}
        self._about |= {"steer": str(steer), "strength": strength} if steer else {}
        steering = ExitStack()
        if fitted:
            steering.enter_context(fitted.attached(handle.load(), strength))
        self._detach = weakref.finalize(self, steering.close)

    def close(self) -> None:
        """Take the steer off; the model is then as before. What was closed may be closed again."""
        self._detach()

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results about the model; here without asking the hub."""
        model: Any = self.model
        return {"model_num_parameters": model.num_parameters(), "model_dtype": model.dtype, "steerlab": self._about}

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As HFLM's, which is given one batch at a time, in its own order, so that each row's prompt is known.

        Raises FloatingPointError for a log-likelihood that is not a number.
        """
        order = sorted(range(len(requests)), key=lambda index: _longest_first(requests[index]))
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for members in batches if disable_tqdm else progress(batches, desc="log-likelihoods", unit="batch"):
            batch = [requests[index] for index in members]
            lengths, mask = _prompts(batch, self.max_length)
            with sites.prompt(self.model, lengths, mask):
                scored = super()._loglikelihood_tokens(batch, disable_tqdm=True, override_bs=len(batch))
            for index, (value, greedy) in zip(members, scored):
                if value != value:
                    raise FloatingPointError(f"a log-likelihood of {requests[index][0]} is nan; use a lower strength")
                results[index] = value, greedy
        return results


register_model("steerlab")(SteerlabLM)


def evaluate(lm: SteerlabLM, tasks: Sequence[str], *, folder: Path | None = None, limit: int | None = None) -> dict:
    """The harness' results of these tasks. folder: with tasks of one's own, as `write_tasks` writes them.

    limit: only the first so many documents of each task. Raises ValueError for a task that the harness does not know.
    """
    manager = TaskManager(
        include_path=None if folder is None else str(folder),
        include_defaults=not set(tasks) <= set(TASKS),  # reading the harness' own thousands takes a while
    )
    unknown = [task for task in tasks if task not in manager.all_tasks and not Path(task).is_file()]
    if unknown:
        ours = " and ".join(TASKS)
        raise ValueError(f"the harness knows no task {unknown[0]!r}; `lm_eval ls tasks` lists its own, ours are {ours}")
    run: Any = evaluator.simple_evaluate
    results = run(model=lm, tasks=list(tasks), task_manager=manager, limit=limit, batch_size=lm.batch_size)
    assert results is not None  # it is None on all but the first of several processes
    return dict(results)


def shown(results: dict) -> str:
    """The harness' own table of its results."""
    return "\n".join(make_table(results, column) for column in ("results", "groups") if results.get(column))


def as_json(results: dict) -> str:
    """The results as the harness writes them, without the documents."""
    kept = {key: value for key, value in results.items() if key != "samples"}
    return json.dumps(kept, indent=2, default=handle_non_serializable) + "\n"


def write_tasks(
    table: Path, folder: Path, *, split: str = "test", rendering: str = "plain", limit: int | None = None
) -> None:
    """Write `TASKS` over a truthfulness table: questions.jsonl and a YAML file a task, for evaluate or --include_path.

    The two tasks are the installed harness' own truthfulqa_mc1 and truthfulqa_mc2 but for the data, which are this
    table's, and the prompt, which stands there whole. limit: see `tables.prompts`.
    Raises ValueError for a table without such questions.
    """
    documents = questions(table, split=split, rendering=rendering, limit=limit)
    for task in TASKS:
        include = f"truthfulqa/{task.replace('truthfulness', 'truthfulqa')}.yaml"
        _write_task(folder, task, include, documents, split, doc_to_text="prompt", should_decontaminate=False)


def write_choice_task(asked: pd.DataFrame, folder: Path) -> Path:
    """Write a task over multiple-choice questions, and return its YAML file, for `samples` or --include_path.

    It is the installed harness' own arc_easy but for the data. asked: id, question, choices (texts), answer (index).
    """
    documents = [
        {
            "id": row["id"],
            "question": row["question"],
            "choices": {"text": list(row["choices"]), "label": [str(place) for place in range(len(row["choices"]))]},
            "answerKey": str(row["answer"]),
        }
        for row in asked.to_dict("records")
    ]
    return _write_task(folder, "reasoning", "arc/arc_easy.yaml", documents, "test")


def samples(lm: SteerlabLM, task: Path) -> list[dict[str, Any]]:
    """What the harness tells of each document of one task: doc, its metrics by name, and more. task: its YAML file.

    Unlike `evaluate` this asks nothing about the machine, which takes seconds, and bootstraps nothing.
    """
    run: Any = evaluator.evaluate
    loaded = TaskManager(include_path=str(task.parent), include_defaults=False).load([task.stem])
    return run(lm, loaded, bootstrap_iters=0)["samples"][task.stem]


def _write_task(folder: Path, task: str, include: str, documents: Sequence[dict], split: str, **more: Any) -> Path:
    """A task of the harness' own, its file by its path there, over other documents: questions.jsonl and YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    data = (folder / "questions.jsonl").resolve()
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    unused = {f"{name}_split": None for name in ("training", "validation")}
    own = {
        "include": str(OWN_TASKS / include),
        "task": task,
        "tag": None,  # else the tag that the harness gives its own would call it, too
        "dataset_path": "json",
        "dataset_name": None,
        # Without a cache of its own, the package datasets would leave a copy in the user's.
        "dataset_kwargs": {"data_files": {split: str(data)}, "cache_dir": str(data.parent / "cache")},
        **unused,
        "test_split": split,
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(own | more))
    return folder / f"{task}.yaml"


OWN_TASKS = Path(evaluator.__file__).parent / "tasks"


def questions(table: Path, *, split: str, rendering: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The questions of a split as the harness' TruthfulQA tasks have them, but `prompt` is all that the model reads.

    Each: id, prompt, and mc1_targets and mc2_targets, {"choices": texts, "labels": 1 correct or 0}, correct ones first.
    """
    answers = dict(list(tables.answers(table, split=split).groupby("group")))
    return [
        {
            "id": name,
            "prompt": prompt,
            "mc1_targets": _targets(answers[name], "mc1"),
            "mc2_targets": _targets(answers[name], "label"),
        }
        for name, prompt in tables.prompts(table, split=split, rendering=rendering, limit=limit)
    ]


def _targets(answers: pd.DataFrame, key: str) -> dict[str, list]:
    chosen = answers[answers[key].notna()].sort_values(key, ascending=False, kind="stable")
    return {"choices": list(chosen.text), "labels": [int(label > 0) for label in chosen[key]]}


def _longest_first(request: Request) -> tuple[int, tuple[int, ...]]:
    """The harness' own order, which a batch given to it must already have."""
    tokens = (*request[1], *request[2])
    return -len(tokens), tokens


def _prompts(batch: Sequence[Request], max_length: int) -> tuple[list[int], torch.Tensor]:
    """Tokens of each row's prompt, and the mask (rows, columns) of what the harness makes of a batch.

    A row is context and continuation without their last token, padded on the right; if longer than max_length, without
    its beginning.
    """
    lost = [max(0, len(context) + len(rest) - max_length - 1) for _, context, rest in batch]
    lengths = [len(context) - less for (_, context, _), less in zip(batch, lost)]
    rows = torch.tensor([length + len(rest) - 1 for length, (_, _, rest) in zip(lengths, batch)])
    return lengths, (torch.arange(int(rows.max())) < rows[:, None]).long()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """HFLM warns of a model that is given to it as an object, which is what is done here on purpose."""
    log = logging.getLogger(huggingface.__name__)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
