"""Where models run: the device is resolved once, before the workflow is planned."""

import shutil
import subprocess


def cards() -> list[str]:
    """One line a GPU as `nvidia-smi -L` prints it; empty where the command is missing or fails."""
    if not shutil.which("nvidia-smi"):
        return []
    result = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    return [line for line in result.stdout.splitlines() if line.startswith("GPU ")] if result.returncode == 0 else []


def resolve(config: dict) -> dict:
    """The configuration with `auto` replaced: device by what is there, dtype by what is fast on it."""
    device = config["device"] if config["device"] != "auto" else "cuda" if cards() else "cpu"
    dtype = config["dtype"] if config["dtype"] != "auto" else "bfloat16" if device == "cuda" else "float32"
    return config | {"device": device, "dtype": dtype}
