"""What several commands share: where a model is, a quiet terminal, and errors of one line."""

import argparse
import sys
from pathlib import Path


def add_where(parser: argparse.ArgumentParser) -> None:
    """Give a command the options --model, --device and --dtype."""
    parser.add_argument("--model", type=Path, required=True, help="a prepared model: results/models/<model>")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where a command runs its model, and in which dtype."""
    parser.add_argument("--device", default="cpu", help="cpu, the default, or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])


def be_quiet(device: str) -> None:
    """No bars of others and no warnings between the lines; raises ValueError for a device that is not there."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error


def write(text: str) -> None:
    """Write a text at once, without a newline of its own."""
    sys.stdout.write(text)
    sys.stdout.flush()


def one_line(error: Exception) -> str:
    """The error's message with every run of white space as one blank."""
    return " ".join(str(error).split())
