"""LatentQA: what reading states costs a training step in time and memory, and what patching the prefill alone saves.

The other way of a training step is a plain low-rank fine-tune by peft of the same model on the same prompts, with the
same loss on the answers alone and nothing patched.
"""

import json
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

from benchmarks.decoding import PROMPTS, edited
from benchmarks.memory import peak_mib
from benchmarks.pairs import Ratio, ratio_of, speed_ratio
from steerlab import latent_reads, low_rank
from steerlab.activations import Activations
from steerlab.decoder_prompts import Prompt, Template
from steerlab.language_modelling import mean_loss
from steerlab.methods import steer_files
from steerlab.methods.latentqa import Decoder, captured
from steerlab.methods.latentqa_control import LatentQAControl
from steerlab.methods.latentqa_trainee import Trainee
from steerlab.models import ModelHandle, pad
from steerlab.streams import bare

ROWS, READ_ROWS, NEW_TOKENS, ALLOWED_MEMORY = 8, 4, 40, 1.1
READ_LAYER, RANK = 15, 16  # of the control, as in the paper
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
        tokens = sum(len(prompt.ids) for prompt in prompts_of(handle))
        return speed_ratio(name, 0.9, ours, _plain_step(handle), pairs=min(pairs, 5), tokens=tokens)


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
    ways = ("decoder", "plain")
    taken = np.array([[peak_mib(take_a_step, handle, way) for way in ways] for _ in range(min(pairs, 3))])
    name = f"peak memory, {ALLOWED_MEMORY:g} x plain LoRA / decoder"
    return ratio_of(name, 1.0, ALLOWED_MEMORY * taken[:, 1] / taken[:, 0], taken, unit="MiB")


def decoding_under_control(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding under a control that changes every linear module up to the block that is read, over plain decoding."""
    model, generator = handle.load(), torch.Generator().manual_seed(0)
    tensors = {}
    for path in low_rank.adapted_paths(model, part="blocks", layers=range(READ_LAYER + 1)):
        A, B = low_rank.factors(low_rank.layer(model.get_submodule(path), RANK, 2.0 * RANK))
        tensors |= {
            f"{path}.{name}": torch.randn(each.shape, generator=generator) for name, each in (("A", A), ("B", B))
        }
    config = {"rank": RANK, "alpha": 2.0 * RANK}
    record = steer_files.Record.of_fit(LatentQAControl, handle, DATA, seed=0, config=config, sites=())
    steer = LatentQAControl(tensors, record)
    return edited("LatentQA's control / plain", 0.95, lambda: steer.attached(model, 1e-3), handle, pairs)


# ---- the ways to train ----


def _decoder_step(handle: ModelHandle, states: Activations | None) -> Callable[[], None]:
    trainee = Trainee(handle, DATA, states, Decoder.fit(handle, DATA, states, **SETTINGS).record)
    return _step(list(trainee.parameters.values()), lambda: trainee.differentiate(range(ROWS), 1.0))


def _plain_step(handle: ModelHandle) -> Callable[[], None]:
    """peft's layers, of the same rank and in the same modules, in a twin of the model that has its parameters."""
    model: Any = bare(handle.load())
    prompts, parameters = prompts_of(handle), plain_parameters(model)

    def differentiate() -> Tensor:
        loss = mean_loss(model, model.get_output_embeddings().weight, prompts)
        loss.backward()
        return loss

    return _step(parameters, differentiate)


def take_a_step(handle: ModelHandle, which: str) -> None:
    """One training step, of the decoder from states on disk or of the plain fine-tune."""
    if which == "plain":
        _plain_step(handle)()
    else:
        with _on_disk(handle) as states:
            _decoder_step(handle, states)()


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
