"""LatentQA's control: low-rank changes of the target's first blocks, learnt so that a decoder answers as is wished.

min over B, A of -log p(answer | question, [x_1 .. x_r] patched in), x the states that the changed target has of a read
prompt at the block that the decoder reads. The decoder is the same weights with its own low-rank changes; these stay
as they are, and target and decoder take turns with the one copy of the weights.

Source: LatentQA, section on control; its code. As there: Adam at a constant rate, one prompt a batch, read prompts with
and without an answer of the assistant. `per_layer_loss`: the decoder is shown the states after each changed block, and
a block learns from its own alone. There, each block has an optimiser of its own and is stepped before the next is run,
on what it gave before that step; Adam treats each number for itself, so one optimiser after the last does the same.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
import torch
from torch import Tensor

from steerlab import latent_reads, low_rank, sites, store
from steerlab.activations import Row, states_of
from steerlab.data.control_rows import Pair, crossed, dialogs_to_learn
from steerlab.decoder_prompts import Prompt
from steerlab.language_modelling import bucketed, text_losses
from steerlab.methods import steer_files
from steerlab.methods.latentqa import TRAINING, Decoder
from steerlab.methods.latentqa_training import Steps, train
from steerlab.methods.low_rank_steer import LowRankSteer
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle, pad
from steerlab.sites import Site, Where

LoraModules = Literal["both", "mlp", "attn", "qv"]
PARTS: dict[str, low_rank.Part] = {"both": "blocks", "mlp": "mlp", "attn": "attention", "qv": "queries_and_values"}


@dataclass(frozen=True, eq=False)
class LatentQAControl(LowRankSteer):
    """See `LowRankSteer` for what it holds, and how it is attached. training: a row an update, as the decoder's."""

    training: tuple[dict[str, float | None], ...] = ()

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations | None = None,
        *,
        seed: int,
        reader: Decoder | Path | str,
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.1,
        lora_modules: LoraModules = "both",
        layers: Sequence[int] | None = None,
        per_layer_loss: bool = False,
        samples: int | None = 50,
        with_replies: bool = True,
        truncate: int | None = None,
        train_percent: float = 100.0,
        updates: int = 50,
        batch_rows: int = 1,
        learning_rate: float = 1e-4,
        held_out_every: int = 20,
        checkpoints: Path | None = None,
        checkpoint_every: int = 50,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `turns`, `question`, `answer` (texts), as `control_rows.crossed` makes it; a row
        a read prompt and pair. `hidden` where leading turns are not shown; `layer` where each block has its own pairs,
        as `crossed_per_layer` makes them, for a loss per layer. No activations: the target's change with every update.

        reader: the decoder or its folder. lora_modules: what is changed in a block; "qv" are queries and values.
        layers: the blocks that are changed, None for the first one to the one that is read. per_layer_loss: see above;
        the loss that is noted is then the mean over the blocks. samples, with_replies, train_percent: as
        `dialogs_to_learn` takes them; the dialogs that are not learnt from give the held-out loss, every so many
        updates. truncate: a read's first so many tokens. batch_rows, learning_rate: of Adam. checkpoints: a folder of
        the store, for a training that goes on after a kill.
        Raises SteerMismatch for another model's reader, ValueError for settings or data that do not serve,
        FloatingPointError where training diverges.
        """
        decoder = reader if isinstance(reader, Decoder) else Decoder.load(Path(reader))
        steer_files.check_model(decoder.record, (model.info.name, model.info.revision))
        if lora_modules not in PARTS:
            raise ValueError(f"lora_modules {lora_modules!r} is unknown; choose one of {', '.join(PARTS)}")
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "reader": store.digest(dataclasses.asdict(decoder.record)),
                "rank": rank, "alpha": alpha, "dropout": dropout, "lora_modules": lora_modules,
                "layers": _changed(layers, decoder), "per_layer_loss": per_layer_loss, "samples": samples,
                "with_replies": with_replies, "truncate": truncate, "train_percent": train_percent,
                "updates": updates, "batch_rows": batch_rows, "learning_rate": learning_rate,
                "held_out_every": held_out_every,
            },
            sites=(),
        )  # fmt: skip
        learner = _Learner(model, decoder, data, record)
        own = store.digest(record.model, record.revision, record.data, seed, record.config, model.device, model.dtype)
        steps = Steps(learner.batches, learning_rate, 0.0, seed, held_out_every, checkpoint_every, cosine=False)
        rows, tensors = train(
            low_rank.named(learner.layers),
            dataclasses.replace(steps, what=f"control, seed {seed}"),
            learner.differentiate,
            learner.held_out_loss if learner.judging else None,
            checkpoints=checkpoints and checkpoints / own,
        )
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise FloatingPointError(f"the control's factors are not finite after {updates} updates; lower its rate")
        return cls(tensors, record, tuple(rows))

    def save(self, folder: Path) -> None:
        """See `Steer.save`; beside the tensors lies the training as JSON, an entry an update."""
        super().save(folder)
        store.write_json(folder / TRAINING, list(self.training))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors, record, tuple(json.loads((folder / TRAINING).read_text())))


def control(
    model: ModelHandle,
    reader: Decoder | Path | str,
    pairs: Sequence[Pair],
    dialogs: Sequence[Sequence[Mapping[str, str]]],
    *,
    seed: int = 0,
    **settings: Any,
) -> LatentQAControl:
    """The steer under which the reader answers these questions so of any of these dialogs.

    pairs: (question, wished answer). dialogs: turns of {"role", "content"}; the last may be the assistant's reply.
    settings: as `LatentQAControl.fit` takes them.
    """
    return LatentQAControl.fit(model, crossed(dialogs, pairs), seed=seed, reader=reader, **settings)


def wished_losses(
    decoder: Decoder,
    model: ModelHandle,
    data: pd.DataFrame,
    steer: LowRankSteer | None = None,
    strength: float = 1.0,
    *,
    batch_rows: int = 8,
) -> pd.DataFrame:
    """As `Decoder.losses`, of what the decoder says about the target while a steer, if any, is attached to the target.

    data: as `fit` takes it. The decoder itself is not steered.
    """
    given = _with_hidden(data)
    reads, _ = latent_reads.reads(model.info.tokenizer, given, official_code=decoder.record.config["official_code"])
    loaded = model.load()
    with steer.attached(loaded, strength) if steer else sites.modules(loaded, {}):
        states = states_of(model, reads, [decoder.site], batch_rows)
    held: Any = _Held([each for (each,) in states])
    return decoder.losses(model, given, held, batch_rows=batch_rows)


@dataclass(frozen=True)
class _Held:
    """States of a table's reads in memory, as activations give them."""

    states: list[Tensor]

    def of_rows(self, site: Site, rows: Sequence[int]) -> list[Tensor]:
        return [self.states[row] for row in rows]


# ---- learning ----


@dataclass(frozen=True)
class _Example:
    """row: what the target reads; prompts: what the decoder is asked after each block whose states it is shown."""

    row: Row
    prompts: tuple[Prompt, ...]


class _Learner:
    """A control that is being learnt. layers: what is learnt; batches: for every update its batches of examples."""

    def __init__(self, model: ModelHandle, decoder: Decoder, data: pd.DataFrame, record: steer_files.Record):
        config = self.config = record.config
        self.handle, self.decoder = model, decoder
        self.model: Any = model.load()
        last = decoder.site.layer
        self.shown = [Site("block_output", each) for each in (config["layers"] if config["per_layer_loss"] else [last])]
        chosen = {name: config[name] for name in ("samples", "with_replies", "train_percent")}
        learnt, judging = dialogs_to_learn(_with_hidden(data), seed=record.seed, **chosen)
        self.fitted, self.judging = self._examples(learnt), self._examples(judging)
        generator = torch.Generator().manual_seed(record.seed)
        paths = low_rank.adapted_paths(self.model, part=PARTS[config["lora_modules"]], layers=config["layers"])
        sizes = config["rank"], config["alpha"], generator
        self.layers = low_rank.fresh(self.model, paths, *sizes, dropout=config["dropout"])
        lengths = [len(example.row.ids) for example in self.fitted]
        self.batches = [[each] for each in bucketed(lengths, config["batch_rows"], config["updates"], generator)]

    def differentiate(self, batch: Sequence[int], factor: float) -> Tensor:
        """The batch's loss times the factor, the mean over the blocks that are shown; each block's gradient is added to
        the parameters'."""
        examples, total = [self.fitted[place] for place in batch], torch.zeros((), device=self.handle.device)
        for place, states in enumerate(self._states(examples, training=True)):
            prompts = [example.prompts[place] for example in examples]
            loss = self.decoder.loss(self.model, prompts, states) * factor
            loss.backward()
            total += loss.detach()
        return total / len(self.shown)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The mean over the judging examples of their answers' mean loss, without dropout."""
        rows, found, embeddings = self.config["batch_rows"], [], self.model.get_output_embeddings().weight
        order = sorted(self.judging, key=lambda example: len(example.row.ids))
        for start in range(0, len(order), rows):
            examples = order[start : start + rows]
            for place, states in enumerate(self._states(examples, training=False)):
                prompts = [example.prompts[place] for example in examples]
                with self.decoder.attached(self.model), self.decoder.shown(self.model, prompts, states):
                    found.append(text_losses(self.model, embeddings, prompts))
        return float(torch.cat(found).mean())

    def _states(self, examples: Sequence[_Example], training: bool) -> list[list[Tensor]]:
        """The target's states after each block that is shown, one (places, hidden) an example; differentiable.

        No block after the last that is shown is run, and of several each begins with states that know no gradient.
        """
        rows = list(dict.fromkeys(example.row for example in examples))
        pad_id = self.handle.info.tokenizer.pad_token_id or 0
        ids, mask = pad([row.ids for row in rows], side="right", pad_id=pad_id, device=self.handle.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        low_rank.set_dropout(self.layers, training)
        with (
            sites.modules(self.model, self.layers),
            sites.first_blocks(self.model, (self.shown[-1].layer or 0) + 1),
            sites.without_head(self.model),
            sites.capture(self.model, self.shown) as states,
            sites.edit(self.model, dict.fromkeys(self.shown[:-1], _detached)),
        ):
            self.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        places = [(rows.index(each.row), torch.tensor(each.row.selected)) for each in examples]
        return [[states[site][line, selected] for line, selected in places] for site in self.shown]

    def _examples(self, data: pd.DataFrame) -> list[_Example]:
        """One a read and pair, or where each block has pairs of its own, one a read and a pair of each.

        Of blocks with fewer pairs than others these come round again. Raises ValueError for a block without any.
        """
        rows, which = latent_reads.reads(
            self.handle.info.tokenizer, data, official_code=self.decoder.record.config["official_code"]
        )
        rows = [_cut(row, self.config["truncate"]) for row in rows]
        template = self.decoder.template(self.handle.info.tokenizer)
        prompts = [
            template.prompt(len(rows[read].selected), [question], [answer], places=rows[read].selected)
            for read, question, answer in zip(which, data["question"], data["answer"], strict=True)
        ]
        if "layer" not in data:
            return [_Example(rows[read], (each,) * len(self.shown)) for read, each in zip(which, prompts)]
        if not self.config["per_layer_loss"]:
            raise ValueError("each layer has its own pairs, but the loss is not per layer; set per_layer_loss")
        found = []
        for read, row in enumerate(rows):
            of_layer = [
                [each for each, own, layer in zip(prompts, which, data["layer"]) if own == read and layer == site.layer]
                for site in self.shown
            ]
            if not all(of_layer):
                missing = self.shown[of_layer.index([])].layer
                raise ValueError(
                    f"layer {missing} has no question for a dialog; give each layer some, or change layers"
                )
            for turn in range(max(map(len, of_layer))):
                found.append(_Example(row, tuple(own[turn % len(own)] for own in of_layer)))
        return found


def _detached(x: Tensor, where: Where) -> Tensor:
    return x.detach()


def _cut(row: Row, tokens: int | None) -> Row:
    """The read's first so many tokens; raises ValueError where none of them is shown."""
    if tokens is None:
        return row
    shown = tuple(place for place in row.selected if place < tokens)
    if not shown:
        raise ValueError(f"none of a read's first {tokens} tokens is shown to the decoder; raise truncate")
    return Row(row.ids[:tokens], shown)


def _changed(layers: Sequence[int] | None, decoder: Decoder) -> list[int]:
    """The blocks that are changed, in order; raises ValueError for none, or one that the decoder does not see."""
    last = decoder.site.layer or 0
    found = sorted(set(range(last + 1) if layers is None else layers))
    if not found or not 0 <= found[0] <= found[-1] <= last:
        raise ValueError(
            f"layers {found} cannot be learnt through block {last}, which is read; give some of 0 to {last}"
        )
    return found


def _with_hidden(data: pd.DataFrame) -> pd.DataFrame:
    return data if "hidden" in data else data.assign(hidden=0)
