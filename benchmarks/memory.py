"""The peak memory of a piece of work: on a CPU of a process of its own, on a card of torch's allocations there.

`python -m benchmarks.memory '{"work": "benchmarks.lm_steer:step_on_many_tokens", "which": "ours", "model": ...,
"device": "cpu", "dtype": "float32", "threads": 2}'` does the work and prints the process's peak in MiB.
"""

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import torch

from steerlab.models import ModelHandle

Work = Callable[[ModelHandle, str], None]  # work(handle, which): does `which`, one of several ways


def peak_mib(work: Work, handle: ModelHandle, which: str, *, without_model: bool = False) -> float:
    """The peak of work(handle, which). without_model: of work that does not run the model; a process has then not
    loaded it, and what lay on a card before does not count."""
    if handle.device.startswith("cuda"):
        return _on_card(work, handle, which, without_model)
    return _of_process(work, handle, which)


def _on_card(work: Work, handle: ModelHandle, which: str, without_model: bool) -> float:
    handle.load()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(handle.device)
    before = torch.cuda.memory_allocated(handle.device) if without_model else 0
    work(handle, which)
    return (torch.cuda.max_memory_allocated(handle.device) - before) / 2**20


def _of_process(work: Work, handle: ModelHandle, which: str) -> float:
    """A process's peak does not come down again, so each has its own."""
    settings: Mapping[str, object] = {
        "work": f"{work.__module__}:{work.__qualname__}",
        "which": which,
        "model": str(handle.folder),
        "device": handle.device,
        "dtype": handle.dtype,
        "threads": torch.get_num_threads(),
    }
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(settings)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(settings: Mapping[str, str]) -> None:
    torch.set_num_threads(int(settings["threads"]))
    module, _, function = settings["work"].partition(":")
    work: Work = getattr(import_module(module), function)
    work(ModelHandle(Path(settings["model"]), device=settings["device"], dtype=settings["dtype"]), settings["which"])
    # Linux: getrusage's ru_maxrss also counts the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("/proc/self/status has no VmHWM; measure memory on Linux")
    print(int(found[1]) / 2**10)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
