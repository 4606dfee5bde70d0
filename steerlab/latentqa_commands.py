"""`python -m steerlab read` and `control`: ask a reader about a model's states, or change the model through it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from steerlab.experiment import names
from steerlab.terminal import add_where, be_quiet, one_line, write

READER = names.READER.replace("{", "<").replace("}", ">")
STEER, PAIRS, OUTPUTS = "steer", "pairs.json", "outputs.json"  # in the folder of a control
ROWS = 8  # prompts that are answered at once

Configured = Callable[[str], Sequence[str]]  # a list of latentqa in config.yaml, empty where there is no such file

# ---- read ----


def add_read(parser: argparse.ArgumentParser, configured: Configured) -> None:
    """The command's arguments. configured: gives the questions where none is asked."""
    add_where(parser)
    parser.add_argument("--reader", type=Path, required=True, help=f"a reader of its states: {READER}")
    parser.add_argument("--system", help="the system prompt that the model reads; default: none")
    parser.add_argument("--user", required=True, help="what the user says to the model then")
    parser.add_argument(
        "--ask", action="append", metavar="QUESTION", help="about the model's states; may be given several times; "
        "default: latentqa.questions of config.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--hide", type=int, default=0, metavar="TURNS", help="leading turns whose states the reader is not shown; "
        "default: 0; with 1 the system prompt, as in the setting masked",
    )  # fmt: skip
    parser.add_argument("--dialog", action="store_true", help="ask one after the other, not each question by itself")
    parser.add_argument("--max-new-tokens", type=int, default=40, help="length of an answer; default: 40")
    parser.set_defaults(run=lambda chosen: _read(chosen, configured))


def _read(chosen: argparse.Namespace, configured: Configured) -> None:
    asked = chosen.ask or configured("questions")
    if not asked:
        sys.exit("read: there is no question; give --ask, or call it where config.yaml has latentqa.questions")
    try:
        from steerlab import latent_reads
        from steerlab.methods.latentqa import Decoder
        from steerlab.models import ModelHandle

        be_quiet(chosen.device)
        if chosen.max_new_tokens < 1:
            raise ValueError("--max-new-tokens begins at 1")
        handle = ModelHandle(chosen.model, device=chosen.device, dtype=chosen.dtype)
        reader = Decoder.load(chosen.reader)
        turns = [{"role": "system", "content": chosen.system}] if chosen.system else []
        turns.append({"role": "user", "content": chosen.user})
        official = reader.record.config["official_code"]
        read = latent_reads.read(handle.info.tokenizer, turns, chosen.hide, official_code=official)
        dialogs = [asked] if chosen.dialog else [[question] for question in asked]
        said = reader.read(handle, [read] * len(dialogs), dialogs, max_new_tokens=chosen.max_new_tokens)
        for question, answer in zip(asked, (answer for dialog in said for answer in dialog), strict=True):
            write(f"{question}\n  {answer.strip()}\n")
    except (ValueError, OSError) as error:
        sys.exit(f"read: {one_line(error)}")


# ---- control ----


def add_control(parser: argparse.ArgumentParser, configured: Configured) -> None:
    """The command's arguments. configured: gives the prompts where there is none."""
    add_where(parser)
    parser.description = (
        "Train low-rank changes of the model under which a reader of its states answers as is wished, and write what "
        f"the model says without and with them. The folder gets {STEER}, which chat and evaluate take, {PAIRS} and "
        f"{OUTPUTS}."
    )
    parser.add_argument("--reader", type=Path, required=True, help=f"a reader of its states: {READER}")
    parser.add_argument("--qa", type=Path, help="the wish as a file: {wish: [[question, answer], ...]}")
    parser.add_argument("--ask", action="append", default=[], help="a question; may be given several times")
    parser.add_argument("--answer", action="append", default=[], help="its wished answer, one to each --ask")
    parser.add_argument(
        "--instructions",
        type=Path,
        help="what the model reads meanwhile, as lines of Dolly's form; default: the sample",
    )
    parser.add_argument(
        "--prompt", action="append", help="what the model is asked without and with the change; may be given several "
        "times; default: latentqa.prompts of config.yaml",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=50, help="instructions at most; default: 50")
    parser.add_argument("--updates", type=int, default=50, help="training steps; default: 50")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of Adam; default: 1e-4")
    parser.add_argument("--seed", type=int, default=0, help="of the changes and the order; default: 0")
    parser.add_argument("--strength", type=float, default=1.0, help="of the change in the outputs; default: 1")
    parser.add_argument("--max-new-tokens", type=int, default=100, help="length of an output; default: 100")
    where = names.CONTROL.format(model="<model>", wish="<name of the file of --qa, or asked>")
    parser.add_argument("--out", type=Path, help=f"a new folder; default: {where}")
    parser.set_defaults(run=lambda chosen: _control(chosen, configured))


def _control(chosen: argparse.Namespace, configured: Configured) -> None:
    prompts = chosen.prompt or configured("prompts")
    if not prompts:
        sys.exit("control: there is no prompt; give --prompt, or call it where config.yaml has latentqa.prompts")
    try:
        from steerlab import store
        from steerlab.data import instructions
        from steerlab.data.sources import SAMPLE
        from steerlab.methods.latentqa import Decoder
        from steerlab.methods.latentqa_control import control
        from steerlab.models import ModelHandle

        be_quiet(chosen.device)
        wish, pairs = _wished(chosen)
        if min(chosen.samples, chosen.updates, chosen.max_new_tokens) < 1:
            raise ValueError("--samples, --updates and --max-new-tokens begin at 1")
        out = chosen.out or Path(names.CONTROL.format(model=chosen.model.name, wish=_wish_name(chosen.qa)))
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} is there already; name a new folder with --out")
        handle = ModelHandle(chosen.model, device=chosen.device, dtype=chosen.dtype)
        asked = instructions.dolly_jsonl(chosen.instructions or SAMPLE / "instructions.jsonl")
        dialogs = [instructions.messages(*row) for row in asked.itertuples(index=False, name=None)]
        how = {"samples": chosen.samples, "updates": chosen.updates, "learning_rate": chosen.learning_rate}
        steer = control(handle, Decoder.load(chosen.reader), pairs, dialogs, seed=chosen.seed, **how)
        outputs = compared(handle, steer, prompts, strength=chosen.strength, max_new_tokens=chosen.max_new_tokens)
        steer.save(out / STEER)
        store.write_json(out / PAIRS, {wish: pairs})
        store.write_json(out / OUTPUTS, {"wish": wish, "strength": chosen.strength, "outputs": outputs})
    except KeyboardInterrupt:
        sys.exit("control: stopped; nothing was written")
    except (ValueError, OSError, ArithmeticError) as error:
        sys.exit(f"control: {one_line(error)}")
    for each in outputs:
        write(f"{each['prompt']}\n  before: {_joined(each['before'])}\n  after: {_joined(each['after'])}\n")
    write(f"written to {out}\n")


def compared(
    handle: Any, steer: Any, prompts: Sequence[str], *, strength: float, max_new_tokens: int
) -> list[dict[str, str]]:
    """{"prompt", "before", "after"} of each prompt: the likeliest answer of the model as it is, and steered."""
    from contextlib import nullcontext

    from steerlab.generations import Decoding, generate
    from steerlab.models import in_chat

    model, tokenizer = handle.load(), handle.info.tokenizer
    decoding = Decoding(max_new_tokens=max_new_tokens, temperature=0.0)
    texts = [
        (str(place), in_chat(tokenizer, [{"role": "user", "content": each}])) for place, each in enumerate(prompts)
    ]
    said: list[list[str]] = []
    for attached in (nullcontext(), steer.attached(model, strength)):
        with attached:
            parts = [texts[start : start + ROWS] for start in range(0, len(texts), ROWS)]
            answers = [generate(model, tokenizer, part, decoding, seed=0)["text"] for part in parts]
            said.append([text.strip() for part in answers for text in part])
    return [
        {"prompt": prompt, "before": before, "after": after}
        for prompt, before, after in zip(prompts, *said, strict=True)
    ]


def _joined(text: str) -> str:
    return " ".join(text.split())


def _wish_name(file: Path | None) -> str:
    return file.stem if file else "asked"


def _wished(chosen: argparse.Namespace) -> tuple[str, list[tuple[str, str]]]:
    """The wish and its pairs; raises ValueError for a file beside questions, for neither, and for uneven numbers."""
    from steerlab.data.latentqa_files import read_control

    asked, answers = len(chosen.ask), len(chosen.answer)
    if chosen.qa and (asked or answers):
        raise ValueError("--qa stands beside --ask and --answer; give one of the two")
    if chosen.qa:
        return read_control(chosen.qa)
    if asked != answers or not asked:
        raise ValueError(
            f"there are {asked} --ask and {answers} --answer; give each question its answer, or a --qa file"
        )
    return "as asked", list(zip(chosen.ask, chosen.answer))
