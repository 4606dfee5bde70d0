"""One training step of LM-Steer on 1,024 tokens in a process of its own; prints the process's peak in MiB.

`python -m benchmarks.memory '{"model": ..., "device": ..., "dtype": ..., "threads": ..., "which": "ours"}'`. On a CPU
it is the peak of the resident memory, on a card that of torch's allocations there.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steerlab.methods.lm_steer import steered_loss, steered_states
from steerlab.models import ModelHandle

TOKENS, EPS = 1024, 1e-3


def main(settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    handle = ModelHandle(Path(settings["model"]), device=settings["device"], dtype=settings["dtype"])
    embeddings = handle.output_embeddings()
    vocab, hidden = embeddings.shape
    generator = torch.Generator().manual_seed(0)
    where = {"device": handle.device}
    states = torch.randn(TOKENS, hidden, generator=generator).to(embeddings)
    targets = torch.randint(vocab, (TOKENS,), generator=generator).to(**where)
    values = torch.ones(TOKENS, 2, **where)
    names = ("projector1", "projector2")
    tensors = {name: torch.randn(2, hidden, max(1, hidden // 4), generator=generator) * 1e-2 for name in names}
    tensors = {name: tensor.to(**where).requires_grad_() for name, tensor in tensors.items()}
    adam = torch.optim.Adam(tensors.values(), lr=1e-2)
    STEPS[settings["which"]](states, targets, embeddings, tensors, values).backward()
    adam.step()
    print(peak_mib(handle.device))


def all_logits(
    states: Tensor, targets: Tensor, embeddings: Tensor, tensors: dict[str, Tensor], values: Tensor
) -> Tensor:
    """The loss as it is written first: every logit at once, in float32."""
    steered = steered_states(states.float(), tensors, values, EPS)
    return functional.cross_entropy((steered.to(embeddings.dtype) @ embeddings.T).float(), targets)


def ours(states: Tensor, targets: Tensor, embeddings: Tensor, tensors: dict[str, Tensor], values: Tensor) -> Tensor:
    return steered_loss(states, targets, embeddings, tensors, values, EPS)


STEPS = {"ours": ours, "all_logits": all_logits}


def peak_mib(device: str) -> float:
    """Linux: VmHWM. getrusage's ru_maxrss also counts the process that started this one."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("/proc/self/status has no VmHWM; measure memory on Linux")
    return int(found[1]) / 2**10


def peak_of_process(module: str, handle: ModelHandle, which: str) -> float:
    """What `python -m <module> <settings>` prints: a peak is a process's, and does not come down again."""
    settings: Mapping[str, object] = {
        "model": str(handle.folder),
        "device": handle.device,
        "dtype": handle.dtype,
        "threads": torch.get_num_threads(),
        "which": which,
    }
    command = [sys.executable, "-m", module, json.dumps(settings)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
