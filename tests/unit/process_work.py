"""What processes are asked to do in the tests of them; a module of its own, because each of them imports it."""

import os
import time
from pathlib import Path

import torch

from steerlab import processes


def fails(number: int) -> None:
    if processes.numbered()[0] == number:
        raise ValueError("no such thing; give another")
    torch.distributed.barrier()


def waits(folder: str) -> None:
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(120)


def is_in_parts(model: str, folder: str) -> None:
    """A process notes how much of a block it holds, between forwards and after one, and what it says of a text."""
    from steerlab import sites
    from steerlab.models import ModelHandle

    handle = ModelHandle(Path(model))
    processes.shard(handle)
    loaded = handle.load()
    sizes = []
    for _ in range(2):
        parameters = list(sites.block(loaded, 0).parameters())
        sizes.append((sum(each.to_local().numel() for each in parameters), sum(each.numel() for each in parameters)))  # pyright: ignore
        with torch.no_grad():
            logits = loaded(torch.tensor([list(b"how are you")])).logits
    torch.save((sizes, logits), Path(folder) / f"{processes.numbered()[0]}.pt")
