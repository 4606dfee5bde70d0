"""Decoding: what an edit costs, and what batches and sampling gain. 16 prompts, 4 samples, 20 new tokens each."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from benchmarks.pairs import Ratio, interleaved, ratio_of, speed_ratio
from steerlab import sites
from steerlab.generations import Decoding, generate
from steerlab.models import ModelHandle, encode, may_wait, pad

# 16 prompts of 16 to 19 tokens of SmolLM2's tokenizer; what they say does not matter, their length does.
SUBJECTS = ("Yesterday my neighbour", "In the end the captain", "A very young teacher", "After that her best friend")
REST = (
    "told everybody at the meeting that the new plan for the town was",
    "looked at the letter on the kitchen table for a while and then",
    "thought that people who talk about the weather all day are just",
    "walked into the shop on the corner and asked the woman why she",
)
PROMPTS = [(f"{i}{j}", f"{subject} {rest}") for i, subject in enumerate(SUBJECTS) for j, rest in enumerate(REST)]
NUCLEUS = Decoding(samples=4, max_new_tokens=20, min_new_tokens=20, temperature=1.0, top_p=0.9)
GREEDY = Decoding(samples=4, max_new_tokens=20, min_new_tokens=20, temperature=0.0)


def idle_edit(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding with an edit that does nothing at the output of every block, over plain decoding."""
    return _edited_blocks("do-nothing edit, all layers / plain", 0.97, lambda x, where: x, handle, pairs)


def added_vector(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding with a vector added to the output of every block, over plain decoding."""
    model = handle.load()
    vector = torch.full((model.config.hidden_size,), 1e-3, dtype=model.dtype, device=model.device)
    return _edited_blocks("added vector, all layers / plain", 0.95, lambda x, where: x + vector, handle, pairs)


def nucleus_sampling(handle: ModelHandle, pairs: int) -> Ratio:
    """Our nucleus sampling of 16 prompts x 4 samples over transformers' generate with the same settings."""
    model, tokenizer = handle.load(), handle.info.tokenizer
    ids, mask = pad(
        [encode(tokenizer, text) for _, text in PROMPTS],
        side="left",
        pad_id=tokenizer.pad_token_id,
        device=model.device,
    )

    def theirs() -> None:
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=NUCLEUS.temperature,
            top_p=NUCLEUS.top_p,
            top_k=0,
            num_return_sequences=NUCLEUS.samples,
            max_new_tokens=NUCLEUS.max_new_tokens,
            min_new_tokens=NUCLEUS.min_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )

    return speed_ratio("nucleus sampling, batch 64 / transformers", 1.6, _ours(handle, NUCLEUS), theirs, pairs=pairs)


def batching(handle: ModelHandle, pairs: int) -> Ratio:
    """One batch of 16 prompts x 4 samples over one continuation of one prompt at a time."""
    single = Decoding(1, NUCLEUS.max_new_tokens, NUCLEUS.min_new_tokens, NUCLEUS.temperature, NUCLEUS.top_p)

    def one_by_one() -> None:
        for _ in range(NUCLEUS.samples):
            for prompt in PROMPTS:
                generate(handle.load(), handle.info.tokenizer, [prompt], single, seed=0)

    seconds = interleaved([_ours(handle, NUCLEUS), one_by_one], min(pairs, 3), warmed=not may_wait(handle.load()))
    return ratio_of("batch 64 / one at a time", 5.0, seconds[:, 1] / seconds[:, 0], seconds)


def edited(
    name: str, aim: float, attached: Callable[[], AbstractContextManager[None]], handle: ModelHandle, pairs: int
) -> Ratio:
    """Greedy decoding inside what `attached` opens, over plain decoding."""
    return compared(name, aim, [attached, nullcontext], handle, pairs)


def compared(
    name: str, aim: float, around: Sequence[Callable[[], AbstractContextManager[None]]], handle: ModelHandle, pairs: int
) -> Ratio:
    """Greedy decoding inside what the first opens, over the same inside what the second opens; both are opened anew at
    each turn, before the time counts, and on a card a step is recorded before it does."""
    decode = _ours(handle, GREEDY)
    seconds = interleaved([decode, decode], pairs, around, warmed=not may_wait(handle.load()))
    made = len(PROMPTS) * GREEDY.samples * GREEDY.max_new_tokens
    return ratio_of(name, aim, seconds[:, 1] / seconds[:, 0], seconds, tokens=made)


def _edited_blocks(name: str, aim: float, edit: sites.Edit, handle: ModelHandle, pairs: int) -> Ratio:
    model = handle.load()
    edits = dict.fromkeys((sites.Site("block_output", layer) for layer in range(model.config.num_hidden_layers)), edit)
    return edited(name, aim, lambda: sites.edit(model, edits), handle, pairs)


def _ours(handle: ModelHandle, decoding: Decoding) -> Callable[[], object]:
    return lambda: generate(handle.load(), handle.info.tokenizer, PROMPTS, decoding, seed=0)
