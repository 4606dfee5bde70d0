"""The training of a decoder, or through one: steps that can be killed at any moment and go on to the same bytes.

Everything random is keyed and not carried along: the order of the batches is drawn once from the seed, and the dropout
of a batch from (seed, step, its place in the step). So a step depends on its number and on the tensors before it, and
processes that share the batches of a step, as torch.distributed has them, do together what one does.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from steerlab import sites, store
from steerlab.processes import numbered
from steerlab.progress import progress

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints: the last, and the one before should the last be damaged

Batch = list[int]


@dataclass(frozen=True)
class Steps:
    """What happens when. batches: for every update those whose mean loss it lowers. learning_rate falls to 0 along a
    cosine, or without it stays; every, checkpoint_every: updates between two looks at the held-out loss, and between
    two checkpoints. keep: the tensors after the last update, or those with the lowest held-out loss."""

    batches: Sequence[Sequence[Batch]]
    learning_rate: float
    weight_decay: float
    seed: int
    every: int
    checkpoint_every: int
    keep: str = "last"
    cosine: bool = True
    what: str = "decoder"  # is trained, for the progress bar


def train(
    parameters: Mapping[str, nn.Parameter],
    steps: Steps,
    differentiate: Callable[[Batch, float], Tensor],
    held_out_loss: Callable[[], float] | None,
    *,
    checkpoints: Path | None,
    tracker: str | None = None,
) -> tuple[list[dict[str, float | None]], dict[str, Tensor]]:
    """AdamW on the parameters, in place, from the last whole checkpoint on.

    differentiate: adds the gradient of a batch's loss times a factor to the parameters' and returns that product;
    torch's generators are keyed meanwhile. checkpoints: a folder of this training alone.
    Returns a row an update (step from 1, loss, learning_rate, held_out_loss or None) and the tensors that are kept.
    Raises FloatingPointError where the loss is not finite.
    """
    adam = torch.optim.AdamW(parameters.values(), lr=steps.learning_rate, weight_decay=steps.weight_decay)
    state = _State(parameters, adam)
    if checkpoints is not None:
        state.resume(checkpoints)
    total, follow = len(steps.batches), _tracker(tracker)
    for step in progress(range(len(state.rows), total), total=total - len(state.rows), desc=steps.what, unit="step"):
        rate = steps.learning_rate * ((1 + cos(pi * step / total)) / 2 if steps.cosine else 1)
        adam.param_groups[0]["lr"] = rate
        loss = _descend(list(parameters.values()), adam, steps, step, differentiate)
        if not isfinite(loss):
            raise FloatingPointError(f"the loss at update {step + 1} is {loss}; lower the learning_rate")
        looked = held_out_loss and ((step + 1) % steps.every == 0 or step + 1 == total)
        held_out = held_out_loss() if held_out_loss and looked else None
        state.rows.append({"step": step + 1, "loss": loss, "learning_rate": rate, "held_out_loss": held_out})
        if steps.keep == "best" and held_out is not None:
            state.note_best(held_out)
        follow(state.rows[-1])
        if checkpoints is not None and (step + 1) % steps.checkpoint_every == 0 and numbered()[0] == 0:
            state.write(checkpoints)
    return state.rows, state.best or state.current()


def _descend(
    parameters: list[nn.Parameter],
    adam: torch.optim.Optimizer,
    steps: Steps,
    step: int,
    differentiate: Callable[[Batch, float], Tensor],
) -> float:
    """One update; returns its loss, the mean over its batches."""
    process, processes = numbered()
    batches, device = steps.batches[step], parameters[0].device
    total = torch.zeros((), device=device)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for place in range(process, len(batches), processes):
        with _keyed(device, steps.seed, step, place):
            total += differentiate(batches[place], 1 / len(batches)).detach()
    if processes > 1:
        for each in [total, *(parameter.grad for parameter in parameters)]:
            distributed.all_reduce(each)
    adam.step()
    return float(total)


@contextmanager
def _keyed(device: torch.device, *key: int) -> Iterator[None]:
    """Inside the `with`, torch's generators are seeded by the key; afterwards they are as before."""
    cards = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(int(store.digest("dropout", *key)[:15], 16))
        yield


class _State:
    """What a training is after so many updates: the rows tell how many."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], adam: torch.optim.Optimizer):
        self.parameters, self.adam = parameters, adam
        self.rows: list[dict[str, float | None]] = []
        self.best: dict[str, Tensor] = {}
        self.lowest: float | None = None

    def current(self) -> dict[str, Tensor]:
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    def note_best(self, held_out: float) -> None:
        if self.lowest is None or held_out < self.lowest:
            self.lowest, self.best = held_out, self.current()

    def write(self, folder: Path) -> None:
        """A checkpoint, whole or not there; older ones than the KEPT last are removed."""
        tensors = {f"parameter {name}": tensor for name, tensor in self.current().items()}
        tensors |= {f"best {name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.parameters.items():
            for part in ("exp_avg", "exp_avg_sq"):
                tensors[f"{part} {name}"] = self.adam.state[parameter][part].cpu().contiguous()
        about = {"rows": json.dumps(self.rows), "lowest": json.dumps(self.lowest)}
        store.write_shard(_file(folder, len(self.rows)), lambda path: save_file(tensors, path, metadata=about))
        for old in sorted(folder.glob("*.safetensors"))[:-KEPT]:
            old.unlink()
            old.with_name(old.name + ".sha256").unlink(missing_ok=True)

    @torch.no_grad()
    def resume(self, folder: Path) -> None:
        """Take up the last whole checkpoint, if there is any."""
        found = next((file for file in sorted(folder.glob("*.safetensors"))[::-1] if store.shard_is_whole(file)), None)
        if found is None:
            return
        with safe_open(found, framework="pt") as file:
            about = file.metadata()
            # Copied, because a mapped file's tensors lie unaligned, and that changes the last bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        self.rows, self.lowest = json.loads(about["rows"]), json.loads(about["lowest"])
        self.best = {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("best ")}
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter {name}"])
            self.adam.state[parameter] = {"step": torch.tensor(float(len(self.rows)))} | {
                part: tensors[f"{part} {name}"].to(parameter.device) for part in ("exp_avg", "exp_avg_sq")
            }
        log.info("the training goes on after update %d", len(self.rows))


def _file(folder: Path, step: int) -> Path:
    return folder / f"{step:07d}.safetensors"


def _tracker(name: str | None) -> Callable[[Mapping[str, float | None]], None]:
    """What passes a row on to trackio or wandb, which share these two calls."""
    if name is None or numbered()[0]:
        return lambda row: None
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"the tracker {name!r} is not installed; install it or set tracker to null") from error
    module.init(project="steerlab")
    return lambda row: module.log({key: value for key, value in row.items() if value is not None})


@contextmanager
def activation_checkpointing(model: Any, enabled: bool) -> Iterator[None]:
    """Inside the `with`, blocks keep only what enters them and are computed again in the backward pass."""
    if not enabled:
        yield
        return
    blocks = [sites.block(model, layer) for layer in range(sites.number_of_layers(model.config))]
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    try:
        for block in blocks:
            block.training = True  # of the block alone: what it holds stays in eval mode, without dropout
        yield
    finally:
        for block in blocks:
            block.training = False
        model.activation_checkpointing_disable()
