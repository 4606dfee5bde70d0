"""A decoder that is being trained: the model with the layers, the examples, and the gradient of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from steerlab import low_rank, sites
from steerlab.language_modelling import bucketed, mean_loss, text_losses
from steerlab.methods import latentqa_examples, steer_files
from steerlab.methods.latentqa_examples import Example, Reads, normalised
from steerlab.methods.latentqa_training import activation_checkpointing
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle
from steerlab.patching import patched


class Trainee:
    """A decoder that is being trained. parameters: what is learnt; fixed: what it needs besides."""

    def __init__(
        self, model: ModelHandle, data: pd.DataFrame, activations: Activations | None, record: steer_files.Record
    ):
        config = self.config = record.config
        self.handle, self.device = model, model.device
        self.reads = Reads(model, data, activations, record.sites[0], config["official_code"])
        chosen = {name: config[name] for name in ("held_out", "max_tokens", "last_answer_only")}
        template = latentqa_examples.template_of(model.info.tokenizer, config)
        self.fitted, self.judging = latentqa_examples.examples(template, data, self.reads, seed=record.seed, **chosen)
        self.fixed, learnt = latentqa_examples.normaliser(
            config["normalise"], self.reads, self.fitted, model.info.config.hidden_size
        )
        self.model: Any = model.load()
        self.generator = torch.Generator().manual_seed(record.seed)
        blocks = range(sites.number_of_layers(model.info.config))
        changed = blocks if config["changed_blocks"] == "all" else blocks[config["write_layer"] + 1 :]
        paths = low_rank.adapted_paths(self.model, config["targets"], "blocks", changed)
        sizes = config["rank"], config["alpha"], self.generator
        self.layers = low_rank.fresh(self.model, paths, *sizes, dropout=config["dropout"])
        self.parameters = low_rank.named(self.layers) | learnt

    def batches(self) -> list[list[list[int]]]:
        """For every update its batches of examples, the same whoever computes them."""
        at_once = self.config["accumulation"]
        lengths = [len(prompt.ids) for prompt, _ in self.fitted]
        cut = bucketed(lengths, self.config["batch_rows"], self.config["updates"] * at_once, self.generator)
        return [cut[start : start + at_once] for start in range(0, len(cut), at_once)]

    def differentiate(self, batch: Sequence[int], factor: float) -> Tensor:
        """The batch's loss times the factor; its gradient is added to the parameters'."""
        chosen = [self.fitted[place] for place in batch]
        with self._decoding(chosen, training=True):
            loss = mean_loss(self.model, self._embeddings, [prompt for prompt, _ in chosen]) * factor
            loss.backward()  # here, because blocks that are computed again need the layers in their places
        return loss

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The mean over the judging examples of their answers' mean loss, without dropout."""
        rows, found = self.config["batch_rows"], []
        order = sorted(self.judging, key=lambda example: len(example[0].ids))
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            with self._decoding(batch, training=False):
                found.append(text_losses(self.model, self._embeddings, [prompt for prompt, _ in batch]))
        return float(torch.cat(found).mean())

    @property
    def _embeddings(self) -> Tensor:
        return self.model.get_output_embeddings().weight

    @contextmanager
    def _decoding(self, batch: Sequence[Example], training: bool) -> Iterator[None]:
        """Inside the `with`, the model is the decoder with the batch's states in their places."""
        states = self.reads.states([read for _, read in batch])  # the target's own, so before the layers are put in
        shown = [normalised(each.to(self.device), self.fixed | self.parameters) for each in states]
        low_rank.set_dropout(self.layers, training)
        autocast = torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.config["autocast"])
        spared = activation_checkpointing(self.model, self.config["checkpointed_activations"] and training)
        patch = patched(self.model, self.config["write_layer"], [prompt.first for prompt, _ in batch], shown)
        with sites.modules(self.model, self.layers), spared, autocast, patch:
            yield
