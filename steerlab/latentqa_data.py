"""`python -m steerlab latentqa-data`: data in LatentQA's schemas, made by a model behind an endpoint."""

import argparse
import os
import sys
from pathlib import Path

STORE = "answers"  # folder beside the files made: what the endpoint has said, kept for ever


def add(parser: argparse.ArgumentParser) -> None:
    """The command's arguments. The key comes from the environment variable CHAT_COMPLETIONS_API_KEY."""
    parser.description = (
        "Ask a model for goals, controls, stimuli, and questions with answers, and write them in LatentQA's schemas. "
        "Every answer is kept as it comes: a run that was stopped goes on where it was, and asks nothing twice. "
        "The key, where the endpoint wants one, is taken from the environment variable CHAT_COMPLETIONS_API_KEY."
    )
    parser.add_argument("--goals", type=int, required=True, help="how many labels to make")
    parser.add_argument("--endpoint", required=True, help="speaks OpenAI's protocol, such as http://localhost:8000/v1")
    parser.add_argument("--model", required=True, help="as the endpoint names it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files and the answers")
    parser.add_argument("--stimuli", type=int, default=3, help="of each goal; default: 3")
    parser.add_argument("--questions", type=int, default=2, help="of each goal; default: 2")
    parser.add_argument("--tries", type=int, default=3, help="requests for one usable answer at most; default: 3")
    parser.add_argument("--quota", type=float, default=1.0, help="requests a second at most; default: 1")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Make and write the files; one line a fault, and the exit status is 1 where nothing could be made."""
    from steerlab.data import latentqa_generation as generation
    from steerlab.scores.cache_file import CacheError
    from steerlab.scores.chat_completions import KEY, ChatCompletions, ask
    from steerlab.scores.connection import ServiceStopped

    if min(chosen.goals, chosen.stimuli, chosen.questions, chosen.tries) < 1 or not chosen.quota > 0:
        sys.exit("latentqa-data: --goals, --stimuli, --questions and --tries begin at 1, --quota above 0")
    how = {"stimuli": chosen.stimuli, "questions": chosen.questions, "tries": chosen.tries}
    try:
        service = ChatCompletions(os.environ.get(KEY, ""), base_url=chosen.endpoint, model=chosen.model)
        made = generation.generate(
            lambda prompts, attempt: ask(service, prompts, chosen.out / STORE, quota=chosen.quota, attempt=attempt),
            chosen.goals,
            **how,
        )
        if made.rows["qa"]:
            generation.write(made, chosen.out)
    except KeyboardInterrupt:
        sys.exit("latentqa-data: stopped; run again to go on, what was answered is kept")
    except (ServiceStopped, CacheError, OSError, ValueError) as error:
        sys.exit(f"latentqa-data: {' '.join(str(error).split())}")
    for fault in made.faults:
        sys.stderr.write(f"latentqa-data: {fault}\n")
    if not made.rows["qa"]:
        sys.exit("latentqa-data: nothing was made; choose a model that follows instructions, or raise --tries")
    counts = ", ".join(f"{len(rows):,} of {name}" for name, rows in made.rows.items())
    sys.stdout.write(f"written to {chosen.out}: {counts}\n")
