"""Activations: hidden states captured once and reused by all, in memory-mapped safetensors shards.

A shard holds the states of `shard_rows` texts at one site, of every block where the site has layers. Its name is the
SHA-256 of their token ids, mask and selected positions, its folder the digest of model revision, site, dtype, device,
attention kernel, batch size, threads and code, so two renderings of one dataset, or two models, can never be mixed up.
A shard that is missing or damaged is captured again by whoever opens it; memory never holds more than one shard, or one
a site where several sites are captured in the same forward passes.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlab import sites, store
from steerlab.data.tables import FITTED, training_rows
from steerlab.models import ModelHandle, Tokenizer, as_read, encode, pad, token_ends
from steerlab.progress import progress
from steerlab.sites import Site

Positions = Literal["last", "all", "answer"]


@dataclass(frozen=True)
class Row:
    """One text's tokens. ids: token ids; selected: positions (from 0) whose states are kept."""

    ids: tuple[int, ...]
    selected: tuple[int, ...]


def select(tokenizer, texts: Sequence[str], positions: Positions, starts: Sequence[int] | None = None) -> list[Row]:
    """Tokenise texts whole and select their last, all, or "answer" positions: the tokens that end beyond `starts`.

    starts: a text's first character that counts (None: 0), special tokens are then left out. Raises ValueError for a
    text without tokens, or without any to select.
    """
    rows = []
    for text, start in zip(texts, [0] * len(texts) if starts is None else starts, strict=True):
        ids = tuple(encode(tokenizer, text))
        chosen = tuple(range(len(ids)))[-1 if positions == "last" else 0 :]
        if positions == "answer":
            chosen = tuple(place for place, end in enumerate(token_ends(tokenizer, text)) if end > start)
        if not chosen:
            raise ValueError(f"no tokens in the text {text[start:]!r}: remove it from the data")
        rows.append(Row(ids, chosen))
    return rows


@dataclass(frozen=True)
class Activations:
    """States of some texts at one site, on disk.

    site: the site's name; layers_captured: every block, or None alone for a site without layers; files: one a shard, in
    the order of the rows; starts: index of the first row of each.
    """

    site: str
    layers_captured: tuple[int | None, ...]
    files: tuple[Path, ...]
    starts: tuple[int, ...]

    def layers(self, site: str) -> list[int | None]:
        """The layers captured at a site; raises KeyError for another site."""
        if site != self.site:
            raise KeyError(f"no activations of site {site!r} here, only of {self.site!r}")
        return list(self.layers_captured)

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        """For each shard: index of the row of each state, (states,) int64, and the states, (states, hidden) or
        (states, heads, head_size), in the model's dtype, memory-mapped."""
        self.layers(site.name)
        for path, start in zip(self.files, self.starts, strict=True):
            with safe_open(path, framework="pt") as file:
                yield file.get_tensor("row").numpy() + start, file.get_tensor(_tensor_name(site.layer))

    def of_rows(self, site: Site, rows: Sequence[int]) -> list[Tensor]:
        """The states of single rows, one (states of the row, hidden) each; only their bytes are read."""
        self.layers(site.name)
        found = []
        for row in rows:
            shard = bisect_right(self.starts, row) - 1
            with safe_open(self.files[shard], framework="pt") as file:
                first, last = np.searchsorted(file.get_tensor("row").numpy() + self.starts[shard], [row, row + 1])
                # Copied, because a mapped file's tensors lie unaligned, and that changes the last bits.
                found.append(file.get_slice(_tensor_name(site.layer))[int(first) : int(last)].clone())
        return found


def labelled_texts(tokenizer: Tokenizer, table: Path, splits: Sequence[str] = FITTED) -> pd.DataFrame:
    """The labelled texts of some splits as this model reads them: the rows that `fit` is given."""
    return as_read(tokenizer, training_rows(table, splits))


def capture(
    handle: ModelHandle,
    rows: Sequence[Row],
    site: str,
    *,
    folder: Path,
    batch_rows: int,
    shard_rows: int,
    made_by: Sequence[object] = (),
    layers: Sequence[int] | None = None,
    share: store.Share = store.WHOLE,
    also: Sequence[tuple[str, Sequence[Row]]] = (),
) -> Activations:
    """Capture the states of all rows at one site, except the shards that are already whole in `folder`.

    made_by: what else decides the bytes and so belongs to the key, such as threads and the digest of the code.
    layers: of a site that has layers, those that are wanted, None for all; no block after the last of them is run.
    share: those of the files that are wanted; no other is then captured, nor in what is returned.
    also: further sites, each with the same texts' rows at positions of its own, whose shards the same forward passes
    capture, with the bytes that they would have alone; who opens these finds them.
    Opening is capturing: every shard's hash is checked, and the model's body is loaded only if one is missing or bad.
    """
    starts = tuple(range(0, len(rows), shard_rows))[share[0] :: share[1]]

    def part(site: str, rows: Sequence[Row], layers: Sequence[int] | None = None) -> _Part:
        wanted = sites.layers_of(handle.info.config, site) if layers is None else tuple(layers)
        some = [] if layers is None else [list(layers)]
        some += [f"on {handle.cards} cards"] if handle.cards > 1 else []
        context = store.digest(
            handle.info.revision, site, handle.dtype, handle.device, handle.attention, batch_rows, list(made_by), *some
        )
        shards = [rows[start : start + shard_rows] for start in starts]
        files = tuple(folder / context / f"{_key(shard)}.safetensors" for shard in shards)
        return _Part(tuple(Site(site, layer) for layer in wanted), shards, files)

    own, *others = part(site, rows, layers), *(part(*other) for other in also)
    for place in progress(range(len(starts)), total=len(starts), desc=f"activations at {site}", unit="shard"):
        missing = [each for each in (own, *others) if not store.shard_is_whole(each.files[place])]
        if missing:
            _write(handle, missing, place, batch_rows)
    return Activations(site, tuple(where.layer for where in own.wanted), own.files, starts)


@dataclass(frozen=True)
class _Part:
    """What is captured of one site: its places, the rows of each shard, and the file of each."""

    wanted: tuple[Site, ...]
    shards: list[Sequence[Row]]
    files: tuple[Path, ...]


def _write(handle: ModelHandle, parts: Sequence[_Part], place: int, batch_rows: int) -> None:
    """Write the shard at a place of each part; the model runs once for all of them."""
    found = _states(handle, [(part.shards[place], part.wanted) for part in parts], batch_rows)
    for part, tensors in zip(parts, found, strict=True):
        store.write_shard(part.files[place], lambda path, tensors=tensors: save_file(tensors, path))


def of_training_texts(
    model: Path, table: Path, spec: dict, folder: Path, share: store.Share = store.WHOLE
) -> Activations:
    """The activations of a task's labelled texts, as `train_steer` and `capture_activations` both open them.

    model: model folder; table: the task's table; spec: site, positions, splits, activations, device, dtype, attention,
    threads, versions, capture_code, and where it has it together: (site, positions) of what else is captured; folder:
    the store; share: of the files, as of `capture`.
    """
    handle = ModelHandle.of(model, spec)
    data = labelled_texts(handle.info.tokenizer, table, spec["splits"])

    def rows(positions: Positions) -> list[Row]:
        return select(handle.info.tokenizer, list(data["text"]), positions, list(data["start"]))

    also = [(site, rows(positions)) for site, positions in spec.get("together", [])]
    return capture(handle, rows(spec["positions"]), spec["site"], share=share, also=also, **kept(spec, folder))


def kept(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Where `capture` keeps shards and what belongs to their key, by the spec of a rule and the folder of the store."""
    made_by = (spec["threads"], spec["versions"], spec["capture_code"])
    return {"folder": folder / "activations", "made_by": made_by, **spec["activations"]}


def states_of(handle: ModelHandle, rows: Sequence[Row], wanted: Sequence[Site], batch_rows: int) -> list[list[Tensor]]:
    """For each row, its selected states at each of these sites, (selected, hidden) or (selected, heads, head size).

    They are on the CPU, in the model's dtype. No block after the last one that is wanted is run.
    """
    (found,) = _states_together(handle, [(rows, wanted)], batch_rows)
    return found


_Asked = Sequence[tuple[Sequence[Row], Sequence[Site]]]  # rows of the same texts, each with the sites it is asked at


@torch.no_grad()
def _states_together(handle: ModelHandle, asked: _Asked, batch_rows: int) -> list[list[list[Tensor]]]:
    """`states_of` for each of what is asked, from the same forward passes."""
    model, pad_id = handle.load(), handle.info.tokenizer.pad_token_id or 0
    rows, wanted = asked[0][0], list(dict.fromkeys(site for _, of_rows in asked for site in of_rows))
    last = [site.layer for site in wanted if site.layer is not None]
    blocks = max(last) + 1 if len(last) == len(wanted) else sites.number_of_layers(handle.info.config)
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    found: list[list[list[Tensor]]] = [[[] for _ in rows] for _ in asked]
    for start in range(0, len(rows), batch_rows):
        batch = by_length[start : start + batch_rows]
        ids, mask = pad([list(rows[i].ids) for i in batch], side="right", pad_id=pad_id, device=handle.device)
        position_ids = (mask.cumsum(1) - 1).clamp(min=0)
        with sites.first_blocks(model, blocks), sites.without_head(model), sites.capture(model, wanted) as states:
            model(input_ids=ids, attention_mask=mask, position_ids=position_ids, use_cache=False)
        for (own, at), of_rows in zip(asked, found, strict=True):
            counts = [len(own[i].selected) for i in batch]
            places = [(line, column) for line, i in enumerate(batch) for column in own[i].selected]
            for where in at:  # off the device in one piece, for each piece is waited for
                lines, columns = torch.tensor(places, device=states[where].device).reshape(-1, 2).T
                selected = states[where][lines, columns].cpu().split(counts)
                for i, of_row in zip(batch, selected):
                    of_rows[i].append(of_row)
    return found


def _states(handle: ModelHandle, asked: _Asked, batch_rows: int) -> list[dict[str, Tensor]]:
    """The tensors of one shard of each: `row`, and the states of each layer, in the order of the rows."""
    shards = []
    for (rows, wanted), found in zip(asked, _states_together(handle, asked, batch_rows), strict=True):
        tensors = {
            _tensor_name(site.layer): torch.cat([of_row[at] for of_row in found]) for at, site in enumerate(wanted)
        }
        shards.append(tensors | {"row": torch.tensor([i for i, row in enumerate(rows) for _ in row.selected])})
    return shards


def _tensor_name(layer: int | None) -> str:
    return "states" if layer is None else f"layer_{layer}"


def _key(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows' token ids and selected positions; the mask of a whole text is all ones, so its length."""
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update(np.array([len(row.ids), *row.ids, len(row.selected), *row.selected], dtype=np.int64).tobytes())
    return hashed.hexdigest()
