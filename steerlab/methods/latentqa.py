"""LatentQA: a decoder, the model itself with low-rank changes, answers questions about the model's hidden states.

The target reads a dialog; its states x at block `read_layer` take the place of block `write_layer`'s output at as many
placeholders of the decoder's prompt, and the decoder is trained to answer (LIT): min over B, A of
-log p(answer | question, [x_1 .. x_r] patched in). Target and decoder share one copy of the weights.

Source: LatentQA, sections on LIT training and reading; its code. As there: every projection of the blocks is changed,
AdamW with a cosine and no warm-up, loss on answers alone. Unlike there the head is not changed (its product would be
made for every token), states are computed once and kept on disk, and reading patches the prefill alone and keeps keys
and values (`use_cache=False` patches anew at every step, as there; the answers are the same).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from csv import DictReader
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlab import activations as states_on_disk
from steerlab import latent_reads, low_rank, sites, store
from steerlab.activations import Row
from steerlab.decoder_prompts import ASSISTANT, Prompt, Template
from steerlab.language_modelling import mean_loss, text_losses
from steerlab.methods import latentqa_examples, steer_files
from steerlab.methods.latentqa_examples import Normalise, Reads, normalised
from steerlab.methods.latentqa_trainee import Trainee
from steerlab.methods.latentqa_training import Steps, train
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle, Tokenizer, identity
from steerlab.patching import greedy, patched
from steerlab.sites import Site

READ_LAYER = 15 / 32  # the paper's block 15 of 32, as a share of the depth
ChangedBlocks = Literal["all", "after_write_layer"]
TRAINING, COLUMNS = "training.csv", ["step", "loss", "learning_rate", "held_out_loss"]


@dataclass(frozen=True, eq=False)
class Decoder:
    """tensors: float32, of each adapted module `<path>.A`, (rank, in), and `<path>.B`, (out, rank); of the states that
    are patched in `mean` and `spread`, or `scale`, (hidden,), if they are normalised. training: a row an update."""

    tensors: dict[str, Tensor]
    record: steer_files.Record
    training: tuple[dict[str, float | None], ...] = ()
    _made: WeakKeyDictionary[nn.Module, low_rank.Layers] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    @property
    def site(self) -> Site:
        """Where the states are read."""
        return self.record.sites[0]

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations | None = None,
        *,
        seed: int,
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.05,
        targets: Sequence[str] | None = None,
        changed_blocks: ChangedBlocks = "all",
        read_layer: float = READ_LAYER,
        write_layer: float = 0,
        normalise: Normalise = "none",
        answer_role: str = ASSISTANT,
        last_answer_only: bool = True,
        official_code: bool = False,
        shift_position_ids: bool = False,
        updates: int = 100,
        batch_rows: int = 8,
        accumulation: int = 1,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.01,
        max_tokens: int = 512,
        held_out: float = 0.1,
        held_out_every: int = 20,
        keep: Literal["last", "best"] = "last",
        autocast: bool | None = None,
        checkpointed_activations: bool | None = None,
        checkpoints: Path | None = None,
        checkpoint_every: int = 50,
        tracker: str | None = None,
    ) -> Self:
        """See `Reader.fit`. data: `id`, `turns`, `hidden`, `question`, `answer`: texts, or lists of them for dialogs of
        several turns; `group` and `split` as `fitted_and_judging` takes them.

        activations: as `captured` makes them of this table. targets: last names of the adapted modules, None for all
        projections of the blocks; changed_blocks: of all blocks, or of those after write_layer alone, so that no
        gradient is taken through the others. read_layer, write_layer: as `sites.layer_index`. normalise: states as they
        are, in standard deviations from their mean over the fitted reads, or times a learnt factor a dimension.
        answer_role: what headers call the decoder ("reflect" in the paper). shift_position_ids: as `Template`. updates:
        each on `accumulation` batches, which processes of torch.distributed share. max_tokens: longer prompts are left
        out. held_out: share of the groups that judge, every so many updates; keep "best": the factors with the lowest
        held-out loss. autocast (bfloat16), checkpointed_activations: None for yes on a GPU. checkpoints: a folder of
        the store, for a training that goes on after a kill; settings and data are keyed in it, code, versions and the
        number of processes are not. tracker: "trackio" or "wandb".
        Raises ValueError for settings or data that do not serve, FloatingPointError where training diverges.
        """
        if normalise not in get_args(Normalise) or keep not in ("last", "best"):
            raise ValueError(f"normalise {normalise!r}, keep {keep!r}: give {get_args(Normalise)}, ('last', 'best')")
        if changed_blocks not in get_args(ChangedBlocks):
            raise ValueError(f"changed_blocks {changed_blocks!r} is unknown; give one of {get_args(ChangedBlocks)}")
        read_block, write_block = (sites.layer_index(model.info.config, each) for each in (read_layer, write_layer))
        if write_block == sites.number_of_layers(model.info.config) - 1:
            raise ValueError(
                f"write_layer {write_block} is the last block, so that no question sees the states; lower it"
            )
        site, on_gpu = Site("block_output", read_block), model.device.startswith("cuda")
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "rank": rank, "alpha": alpha, "dropout": dropout, "targets": targets and list(targets),
                "changed_blocks": changed_blocks, "read_layer": read_block, "write_layer": write_block,
                "normalise": normalise, "answer_role": answer_role,
                "last_answer_only": last_answer_only, "official_code": official_code,
                "shift_position_ids": shift_position_ids, "updates": updates, "batch_rows": batch_rows,
                "accumulation": accumulation, "learning_rate": learning_rate, "weight_decay": weight_decay,
                "max_tokens": max_tokens, "held_out": held_out, "held_out_every": held_out_every, "keep": keep,
                "autocast": on_gpu if autocast is None else autocast,
                "checkpointed_activations": on_gpu if checkpointed_activations is None else checkpointed_activations,
            },
            sites=(site,),
        )  # fmt: skip
        trainee = Trainee(model, data, activations, record)
        own = store.digest(record.model, record.revision, record.data, seed, record.config, model.device, model.dtype)
        rows, tensors = train(
            trainee.parameters,
            Steps(trainee.batches(), learning_rate, weight_decay, seed, held_out_every, checkpoint_every, keep),
            trainee.differentiate,
            trainee.held_out_loss if trainee.judging else None,
            checkpoints=checkpoints and checkpoints / own,
            tracker=tracker,
        )
        return cls(tensors | {name: tensor.cpu() for name, tensor in trainee.fixed.items()}, record, tuple(rows))

    # ---- reading ----

    def attached(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Inside the returned context the model is the decoder; open it before any edit.

        Raises SteerMismatch for another model than the one it was fitted for.
        """
        steer_files.check_model(self.record, identity(model))
        made = self._made.get(model, {})
        if not (made and low_rank.fit_in(made, model)):
            rank, alpha = self.record.config["rank"], self.record.config["alpha"]
            made = self._made[model] = low_rank.filled(model, self.tensors, rank, alpha)
        return sites.modules(model, made)

    def shown(
        self, model: PreTrainedModel, prompts: Sequence[Prompt], states: Sequence[Tensor]
    ) -> AbstractContextManager[None]:
        """Inside the returned context the states, as the target has them, are in their places in the prompts.

        states: (count, hidden) a prompt; differentiable in them.
        """
        given = [normalised(each.to(model.device), self.tensors) for each in states]
        return patched(model, self.record.config["write_layer"], [prompt.first for prompt in prompts], given)

    def loss(self, model: Any, prompts: Sequence[Prompt], states: Sequence[Tensor]) -> Tensor:
        """Mean loss in nats of the prompts' answers, differentiable in the states; see `shown`."""
        with self.attached(model), self.shown(model, prompts, states):
            return mean_loss(model, model.get_output_embeddings().weight, prompts)

    def read(
        self,
        model: ModelHandle,
        reads: Sequence[Row],
        questions: Sequence[Sequence[str]],
        *,
        batch_rows: int = 8,
        states: Sequence[Tensor] | None = None,
        max_new_tokens: int = 60,
        beams: int = 1,
        use_cache: bool = True,
    ) -> list[list[str]]:
        """See `Reader.read`; each next question comes after the decoder's own former answer. The likeliest token is
        taken at every step. states: of these reads, where they are at hand, (places shown, hidden) each. use_cache:
        False patches anew at every step, as the official code, to the same effect."""
        if len(reads) != len(questions):
            raise ValueError(f"{len(questions)} dialogs of questions for {len(reads)} reads; give each read its own")
        if not reads:
            return []
        template, loaded = self.template(model.info.tokenizer), model.load()
        if states is None:
            different = list(dict.fromkeys(reads))
            found = states_on_disk.states_of(model, different, [self.site], batch_rows)
            states = [found[different.index(row)][0] for row in reads]
        answers: list[list[str]] = [[] for _ in reads]
        how = {"max_new_tokens": max_new_tokens, "num_beams": beams, "use_cache": use_cache}
        for turn in range(max(map(len, questions))):
            asked = [place for place, dialog in enumerate(questions) if turn < len(dialog)]
            asked.sort(key=lambda place: (len(reads[place].selected), place))
            for start in range(0, len(asked), batch_rows):
                batch = asked[start : start + batch_rows]
                prompts = [
                    template.prompt(len(states[i]), questions[i][: turn + 1], answers[i], places=reads[i].selected)
                    for i in batch
                ]
                with self.attached(loaded), self.shown(loaded, prompts, [states[i] for i in batch]):
                    new = greedy(loaded, model.info.tokenizer, prompts, template.closing[-1], **how)
                for i, answer in zip(batch, new, strict=True):
                    answers[i].append(answer)
        return answers

    def losses(
        self,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations | None = None,
        *,
        shown: Sequence[int] | None = None,
        patch: bool = True,
        batch_rows: int = 8,
    ) -> pd.DataFrame:
        """See `Reader.losses`; an answer's log-likelihood is -loss times tokens.

        shown: for each row, the row whose read the decoder is shown in its stead. patch: False leaves the placeholders
        as they are.
        """
        loaded: Any = model.load()
        reads = Reads(model, data, activations, self.site, self.record.config["official_code"])
        template = self.template(model.info.tokenizer)
        which = [reads.which[row] for row in (range(len(data)) if shown is None else shown)]
        prompts = [
            latentqa_examples.prompt(template, reads, read, question, answer, self.record.config["last_answer_only"])
            for read, question, answer in zip(which, data["question"], data["answer"], strict=True)
        ]
        order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row].ids), row))
        found = np.zeros(len(prompts))
        for start in range(0, len(order), batch_rows):
            batch = order[start : start + batch_rows]
            given = [prompts[row] for row in batch]
            states = reads.states([which[row] for row in batch]) if patch else []
            put_in = self.shown(loaded, given, states) if patch else nullcontext()
            with self.attached(loaded), put_in, torch.no_grad():
                found[batch] = text_losses(loaded, loaded.get_output_embeddings().weight, given).numpy()
        tokens = [len(prompt.asked) for prompt in prompts]
        return pd.DataFrame({"id": data["id"].to_list(), "loss": found, "tokens": tokens})

    def template(self, tokenizer: Tokenizer) -> Template:
        """How this decoder's prompts are made."""
        return latentqa_examples.template_of(tokenizer, self.record.config)

    def save(self, folder: Path) -> None:
        """See `Reader.save`; beside the tensors lies the training as CSV, a row an update."""
        steer_files.save(folder, self.record, self.tensors)
        rows = pd.DataFrame(list(self.training), columns=COLUMNS)
        store.write_atomically(folder / TRAINING, lambda path: rows.to_csv(path, index=False))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Reader.load`."""
        record, tensors = steer_files.read(folder)
        with (folder / TRAINING).open() as file:
            rows = [{name: float(value) if value else None for name, value in row.items()} for row in DictReader(file)]
        return cls(tensors, record, tuple(rows))


def captured(
    model: ModelHandle,
    data: pd.DataFrame,
    *,
    folder: Path,
    batch_rows: int,
    shard_rows: int,
    read_layer: float = READ_LAYER,
    official_code: bool = False,
    made_by: Sequence[object] = (),
) -> states_on_disk.Activations:
    """The states of a table's different reads, once on disk: what `fit` and `losses` take."""
    reads, _ = latent_reads.reads(model.info.tokenizer, data, official_code=official_code)
    layers = [sites.layer_index(model.info.config, read_layer)]
    where = {"folder": folder, "made_by": made_by, "batch_rows": batch_rows, "shard_rows": shard_rows}
    return states_on_disk.capture(model, reads, "block_output", layers=layers, **where)
