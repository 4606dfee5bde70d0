"""Given answers: what is gained by computing once what their texts have in common. 4 questions of 7 or 8 answers."""

import torch

from benchmarks.pairs import Ratio, speed_ratio
from steerlab.likelihood import log_likelihoods
from steerlab.models import ModelHandle, encode, pad

# Six examples before every question, of some 170 tokens of SmolLM2's tokenizer; what they say does not matter.
EXAMPLES = (
    ("How long does a letter take from one end of the country to the other?", "It takes about three days by train."),
    ("Who wrote down the rules of the game that the children play?", "Their teacher, Ms Ada Field, wrote them down."),
    ("Which of the two did she like better?", "She liked the one about the river better."),
    ("What is the colour of the number nine?", "I have nothing to say to that."),
    ("How does a water mill work?", "The river turns a wheel, and the wheel turns the stones that grind the grain."),
    ("Where was the first meeting of the club held?", "It was held in the small town of Ashby, in a tea room."),
)
PREAMBLE = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in EXAMPLES)
QUESTIONS = (
    "What happens to a coin that you throw into a well?",
    "Which animal in the village can see at night?",
    "Why do the leaves of the old tree turn yellow?",
    "Who was the first to swim across the lake?",
)
ANSWERS = (
    "Nothing in particular happens",
    "It brings luck to those who believe in it",
    "Nobody knows",
    "The owl that lives in the church tower",
    "It depends on the weather and on the time of the year",
    "The old captain did it, with his dog",
    "I have nothing to say to that",
    "There is less light in autumn",
)
PAIRS = [
    (f"{PREAMBLE}Q: {question}\nA:", f" {answer}.")
    for number, question in enumerate(QUESTIONS)
    for answer in ANSWERS[number % 2 :]
]
TOKENS_A_BATCH = 2048


def shared_prefixes(handle: ModelHandle, pairs: int) -> Ratio:
    """Log-likelihoods through the shared trunk and prompts over those of whole texts, in batches of as many tokens."""
    model, tokenizer = handle.load(), handle.info.tokenizer
    whole = sorted(
        ((encode(tokenizer, a + b), len(encode(tokenizer, a))) for a, b in PAIRS), key=lambda text: -len(text[0])
    )
    rows = max(1, TOKENS_A_BATCH // len(whole[0][0]))

    def ours() -> None:
        log_likelihoods(model, tokenizer, PAIRS, tokens_a_batch=TOKENS_A_BATCH)

    def each_whole() -> None:
        for start in range(0, len(whole), rows):
            batch = whole[start : start + rows]
            ids, mask = pad([ids for ids, _ in batch], side="right", pad_id=tokenizer.pad_token_id, device=model.device)
            kept = ids.shape[1] - min(first for _, first in batch) + 1  # logits before the answers are not made
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
            steps = logits[:, :-1].float().log_softmax(-1)
            steps.gather(-1, ids[:, 1 - kept :, None]).sum().item()

    return speed_ratio("answers, shared prefixes / whole texts", 2.0, ours, each_whole, pairs=pairs)
