"""LatentQA: what reading states costs a training step in time and memory, and what patching the prefill alone saves.

The other way of a training step is a plain low-rank fine-tune by peft of the same model on the same prompts, with the
same loss on the answers alone and nothing patched. `python -m benchmarks.latentqa '{"model": ..., "which": "decoder",
...}'`, with the settings of `benchmarks.memory`, takes one step in a process of its own and prints its peak in MiB.
"""

import copy
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.decoding import PROMPTS
from benchmarks.memory import peak_mib, peak_of_process
from benchmarks.pairs import Ratio, ratio_of, speed_ratio
from steerlab import latent_reads, low_rank
from steerlab.activations import Activations
from steerlab.decoder_prompts import Prompt, Template
from steerlab.language_modelling import mean_loss
from steerlab.methods.latentqa import Decoder, captured
from steerlab.methods.latentqa_trainee import Trainee
from steerlab.models import ModelHandle, pad

ROWS, READ_ROWS, NEW_TOKENS, ALLOWED_MEMORY = 8, 4, 40, 1.1
QUESTION, ANSWER = "Which one word tells how the assistant is now?", "It is cheerful and likes to speak of the sea."
# Reads of some 40 tokens of SmolLM2's tokenizer; the decoder's prompts have some 100.
TURNS = [
    [{"role": "system", "content": PROMPTS[place][1]}, {"role": "user", "content": PROMPTS[place + ROWS][1]}]
    for place in range(ROWS)
]
DATA = pd.DataFrame({"id": [f"{place}" for place in range(ROWS)], "turns": [json.dumps(turns) for turns in TURNS]})
DATA = DATA.assign(hidden=0, question=QUESTION, answer=ANSWER)
SETTINGS: dict[str, Any] = {"seed": 0, "updates": 1, "batch_rows": ROWS, "held_out": 0.0}
SETTINGS |= {"autocast": False, "checkpointed_activations": False}  # on a card, too: the plain way has neither


def training_from_states_on_disk(handle: ModelHandle, pairs: int) -> Ratio:
    """A decoder's training step that reads the states from disk over a plain fine-tune's."""
    with _on_disk(handle) as states:
        ours = _decoder_step(handle, states)
        name = "decoder's step, states kept / plain LoRA"
        return speed_ratio(name, 0.9, ours, _plain_step(handle), pairs=min(pairs, 5))


def training_with_the_target(handle: ModelHandle, pairs: int) -> Ratio:
    """The same where the target is run within the step."""
    ours = _decoder_step(handle, None)
    name = "decoder's step, target in it / plain LoRA"
    return speed_ratio(name, 0.65, ours, _plain_step(handle), pairs=min(pairs, 5))


def reading_with_a_cache(handle: ModelHandle, pairs: int) -> Ratio:
    """40 tokens of answers to 4 prompts, the prefill patched and keys and values kept, over a patch at each step."""
    decoder = Decoder.fit(handle, DATA, **SETTINGS)
    cached, anew = (reading(handle, decoder, use_cache) for use_cache in (True, False))
    name = "reading, patched prefill / patch every step"
    return speed_ratio(name, 3.0, cached, anew, pairs=min(pairs, 5))


def memory_of_a_training_step(handle: ModelHandle, pairs: int) -> Ratio:
    """The peak of a process that takes a decoder's step; the ratio is to 1.1 of a plain fine-tune's."""
    taken = np.array(
        [
            [peak_of_process("benchmarks.latentqa", handle, which) for which in ("decoder", "plain")]
            for _ in range(min(pairs, 3))
        ]
    )
    name = f"peak memory, {ALLOWED_MEMORY:g} x plain LoRA / decoder"
    return ratio_of(name, 1.0, ALLOWED_MEMORY * taken[:, 1] / taken[:, 0], taken, unit="MiB")


# ---- the ways to train ----


def _decoder_step(handle: ModelHandle, states: Activations | None) -> Callable[[], None]:
    trainee = Trainee(handle, DATA, states, Decoder.fit(handle, DATA, states, **SETTINGS).record)
    return _step(list(trainee.parameters.values()), lambda: trainee.differentiate(range(ROWS), 1.0))


def _plain_step(handle: ModelHandle, *, in_place: bool = False) -> Callable[[], None]:
    """peft's layers, of the same rank and in the same modules; in a copy of the model, or for good in the model."""
    model: Any = handle.load() if in_place else copy.deepcopy(handle.load())
    prompts, parameters = prompts_of(handle), plain_parameters(model)

    def differentiate() -> Tensor:
        loss = mean_loss(model, model.get_output_embeddings().weight, prompts)
        loss.backward()
        return loss

    return _step(parameters, differentiate)


def plain_parameters(model: Any) -> list[nn.Parameter]:
    """What a plain fine-tune changes; peft's layers are put into the model."""
    names = sorted({path.rpartition(".")[2] for path in low_rank.adapted_paths(model, part="blocks")})
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=names))
    tuned.train()
    return [each for each in tuned.parameters() if each.requires_grad]


def prompts_of(handle: ModelHandle) -> list[Prompt]:
    """The decoder's prompts about the reads."""
    template, (reads, _) = Template(handle.info.tokenizer), latent_reads.reads(handle.info.tokenizer, DATA)
    return [template.prompt(len(read.selected), [QUESTION], [ANSWER]) for read in reads]


def _step(parameters: Sequence[nn.Parameter], differentiate: Callable[[], Tensor]) -> Callable[[], None]:
    adam = torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.01)

    def step() -> None:
        adam.zero_grad()
        loss = differentiate()
        adam.step()
        float(loss.detach())  # waits for a card

    return step


@contextmanager
def _on_disk(handle: ModelHandle) -> Iterator[Activations]:
    """The states of the reads, in a store that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield captured(handle, DATA, folder=Path(folder), batch_rows=ROWS, shard_rows=ROWS)


# ---- reading ----


def reading(handle: ModelHandle, decoder: Decoder, use_cache: bool) -> Callable[[], Tensor]:
    """Every answer has all its tokens, whatever the decoder would like to end with."""
    model, (reads, _) = handle.load(), latent_reads.reads(handle.info.tokenizer, DATA)
    template, generator = decoder.template(handle.info.tokenizer), torch.Generator().manual_seed(0)
    reads = reads[:READ_ROWS]
    prompts = [template.prompt(len(read.selected), [QUESTION], []) for read in reads]
    width = model.config.hidden_size
    drawn = [torch.randn(len(read.selected), width, generator=generator) for read in reads]
    states = [each.to(model.device, model.dtype) for each in drawn]
    ids, mask = pad([prompt.ids for prompt in prompts], side="left", pad_id=0, device=model.device)
    length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "pad_token_id": 0}

    def read() -> Tensor:
        with decoder.attached(model), decoder.shown(model, prompts, states):
            return model.generate(input_ids=ids, attention_mask=mask, do_sample=False, use_cache=use_cache, **length)

    return read


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    model = ModelHandle(Path(asked["model"]), device=asked["device"], dtype=asked["dtype"])
    if asked["which"] == "plain":
        _plain_step(model, in_place=True)()
    else:
        with _on_disk(model) as on_disk:
            _decoder_step(model, on_disk)()
    print(peak_mib(asked["device"]))
