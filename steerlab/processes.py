"""One piece of work shared by several processes: each calls the same function, and torch.distributed joins them.

torch's elastic launcher, which accelerate's own go through, starts them as fresh interpreters: nothing of the job that
asks, no CUDA context and no script, is taken along. When one fails all end, and all end with the job. In each of them
accelerate says which card it has.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from steerlab.models import ModelHandle

ROOT = Path(__file__).parents[1]
START = "import sys; sys.path.insert(0, sys.argv[1]); from steerlab.processes import main; main(*sys.argv[2:])"
PATIENCE = timedelta(days=2)  # that a process waits for the others, one of which may capture states meanwhile


class ProcessError(RuntimeError):
    """Processes that cannot be started, or the first of them that failed; the message says which and why."""


def share(processes: int, function: str, arguments: Mapping[str, Any], *, device: str) -> None:
    """Call function, "module:name", with the arguments in so many processes of `device`, and wait for all.

    arguments: as JSON has them, paths as text. On cards each process has one: "cuda" is its own there.
    Raises ProcessError for too few cards, or with the first failure's type and message.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cards = torch.cuda.device_count() if device == "cuda" else processes
    if cards < processes:
        raise ProcessError(
            f"{processes} processes need a card each, this job has {cards}; run with --resources gpu={processes}, or "
            "set fewer processes"
        )
    with tempfile.TemporaryDirectory(prefix="steerlab-processes-") as folder:
        quiet = dict.fromkeys(range(1, processes), Std.ALL)  # they would say what the first one says
        config = LaunchConfig(
            *(1, 1, processes),
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=quiet),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
        )
        asked = (str(ROOT), str(os.getpid()), device, function, json.dumps(dict(arguments), default=str))
        try:
            elastic_launch(config, sys.executable)("-c", START, *asked)
        except ChildFailedError as error:
            raise ProcessError(_first(error.failures)) from error


def _first(failures: Mapping[int, Any]) -> str:
    """What the first process that failed said; those that lost it fail right afterwards."""
    said = {rank: failure for rank, failure in failures.items() if Path(failure.error_file).is_file()}
    if not said:
        rank, failure = next(iter(failures.items()))
        return f"process {rank} ended with {failure.exitcode}: {failure.message}"
    rank = min(said, key=lambda rank: Path(said[rank].error_file).stat().st_mtime_ns)
    return f"process {rank}: {said[rank].error_file_data['message']['message']}"


def main(launcher: str, device: str, function: str, arguments: str) -> None:
    """What each process does."""
    from accelerate import PartialState
    from torch.distributed.elastic.multiprocessing.errors import record

    _end_with(int(launcher))
    logging.basicConfig(level=logging.INFO)

    @record
    def work() -> None:
        state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
        module, name = function.split(":")
        getattr(import_module(module), name)(**json.loads(arguments))
        state.destroy_process_group()

    work()


def _end_with(launcher: int) -> None:
    """End this process when the one that started it is gone: it would hold a card."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ---- inside a process ----


def numbered() -> tuple[int, int]:
    """This process's number, from 0, and how many there are: (0, 1) where nothing is shared."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def first_process_first() -> Iterator[None]:
    """The others enter the `with` after the first has left it."""
    if numbered()[0]:
        distributed.barrier()
    yield
    if numbered() != (0, 1) and not numbered()[0]:
        distributed.barrier()


def shard(handle: ModelHandle) -> None:
    """Let the handle's model be one whose blocks lie in parts on the devices of all processes (FSDP).

    A block is whole on a device only while it is computed there. Embeddings, last norm and head are on each. Processes
    load one after the other, so that the host holds one copy, and from then on run the same forwards in step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from steerlab.models import ModelHandle
    from steerlab.sites import block, number_of_layers

    (number, count), device = numbered(), handle.device
    mesh = init_device_mesh(device, (count,))
    for turn in range(count):
        if turn == number:
            model: Any = ModelHandle(handle.folder, dtype=handle.dtype, attention=handle.attention).load()
            for layer in range(number_of_layers(model.config)):
                # Each is a root of its own, as blocks are left out at times; by default a root is kept whole.
                fully_shard(block(model, layer), mesh=mesh, reshard_after_forward=True)
            handle.__dict__["_model"] = model.to(device)
        distributed.barrier()
