"""Models: folders of safetensors with a pinned revision, and the handle through which every stage reaches them.

`prepare` writes a model folder once from whatever the config names: a GGUF file, a hub repository, a folder or a random
tiny model. `ModelHandle` opens it: its description costs no weights, its output embeddings cost one tensor, its body is
read when a stage runs it.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from steerlab.data import hub
from steerlab.store import weights_digest, write_json

Tokenizer = Any  # transformers' fast tokenizers share no annotated base class that names what is used here

RECORD = "model.json"
NO_CHAT = (
    "this model's tokenizer has no chat template; choose an instruction-tuned model, or give its entry under models "
    "a chat_template"
)


class ModelError(ValueError):
    """A model that cannot be prepared or opened; the message says which, why and what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without its weights. `revision` is the SHA-256 of the weights (hex)."""

    name: str
    revision: str
    folder: Path
    config: PreTrainedConfig
    tokenizer: Tokenizer


class ModelHandle:
    """A prepared model folder, opened step by step: `info`, then `output_embeddings()`, then `load()`.

    device: a torch device; dtype: the name of a torch floating dtype; attention: transformers' `attn_implementation`;
    cards: on how many the blocks lie, all that are visible if it is more than 1. Ids, masks and logits are on `device`.
    """

    def __init__(
        self, folder: Path, *, device: str = "cpu", dtype: str = "float32", attention: str = "sdpa", cards: int = 1
    ):
        self.folder, self.device, self.dtype, self.attention = Path(folder), device, dtype, attention
        self.cards = cards

    @classmethod
    def of(cls, folder: Path, spec: Mapping[str, Any]) -> Self:
        """The handle that a rule's spec asks for; of one card a spec says nothing."""
        where = {key: spec[key] for key in ("device", "dtype", "attention")}
        return cls(folder, **where, cards=spec.get("cards", 1))

    @cached_property
    def info(self) -> ModelInfo:
        """Name, revision, config and tokenizer; no weights are read. Raises ModelError for a folder not prepared."""
        record = self.folder / RECORD
        if not record.is_file():
            raise ModelError(f"{self.folder} is no prepared model folder: it has no {RECORD}; prepare it first")
        about = json.loads(record.read_text())
        config = AutoConfig.from_pretrained(self.folder)
        return ModelInfo(about["name"], about["revision"], self.folder, config, load_tokenizer(self.folder))

    def output_embeddings(self) -> Tensor:
        """The matrix that turns the last hidden state into logits, (vocab, hidden), in the handle's dtype and device.

        Read straight from the weights file: the input embeddings where the two are tied. The body is not loaded. A bias
        (GPT-J has one) is not part of it.
        """
        names = _tensor_files(self.folder)
        wanted = _INPUT_EMBEDDINGS if _tied(self.info.config, names) else _OUTPUT_EMBEDDINGS
        name = next((name for name in wanted if name in names), None)
        if name is None:
            raise ModelError(f"{self.folder} holds none of {', '.join(wanted)}: name this family's output embeddings")
        with safe_open(names[name], framework="pt") as file:
            return file.get_tensor(name).to(device=self.device, dtype=getattr(torch, self.dtype))

    def load(self) -> PreTrainedModel:
        """The model in eval mode with frozen parameters; read at the first call, the same object afterwards."""
        return self._model

    @cached_property
    def _model(self) -> PreTrainedModel:
        model: Any = AutoModelForCausalLM.from_pretrained(
            self.folder,
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attention,
            use_safetensors=True,
            local_files_only=True,
            **({"device_map": "balanced"} if self.cards > 1 else {}),
        )
        # Over several cards accelerate's hooks take the states from card to card; such a model is not to be moved.
        return (model if self.cards > 1 else model.to(self.device)).eval().requires_grad_(False)


def identity(model: Any) -> tuple[str, str]:
    """(name, revision) of any loaded model; a model that was not prepared here answers with its hub name and commit."""
    ours = getattr(model.config, "steerlab", None)
    if ours:
        return ours["name"], ours["revision"]
    return str(model.config._name_or_path), str(getattr(model.config, "_commit_hash", None))


def may_wait(model: Any) -> bool:
    """True on a CPU, where asking a tensor for its values is free. A card is waited for, and a recording is spoilt."""
    return model.device.type == "cpu"


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer; a tokenizer without a pad token pads with its end-of-sequence token.

    Its `padding_side` is not to be trusted (it is not stored): batches are padded by `pad`.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a whole text, with the special tokens the tokenizer puts in front, never twice.

    A rendering that already opens with the begin-of-sequence token (a chat template does) gets no second one.
    """
    return tokenizer(text, add_special_tokens=not opens_with_bos(tokenizer, text))["input_ids"]


def token_ends(tokenizer: Tokenizer, text: str) -> list[int]:
    """The character at which each token of `encode` ends (exclusive); 0 for special tokens, which have none."""
    options = {"return_offsets_mapping": True, "add_special_tokens": not opens_with_bos(tokenizer, text)}
    return [end for _, end in tokenizer(text, **options)["offset_mapping"]]


def opens_with_bos(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text begins with the begin-of-sequence token, written out; False for a tokenizer that has none."""
    return bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)


def as_read(tokenizer: Tokenizer, rows: pd.DataFrame) -> pd.DataFrame:
    """Labelled texts as this model reads them: those of the rendering "chat" in its chat template.

    rows: text, start, end, rendering; of a chat the characters before `start` are the user's turn, the rest is the
    assistant's answer, at whose end the text stops. Their rendering is then "plain". A tokenizer without a template
    reads them as they are.
    """
    chats = rows["rendering"] == "chat"
    if not chats.any():
        return rows
    read = rows.assign(rendering="plain")
    if tokenizer.chat_template is None:
        return read
    parts = [
        _before_and_answer(tokenizer, text[:start], text[start:end])
        for text, start, end in zip(rows.text[chats], rows.start[chats], rows.end[chats])
    ]
    read.loc[chats, "text"] = [before + answer for before, answer in parts]
    read.loc[chats, "start"] = [len(before) for before, _ in parts]
    read.loc[chats, "end"] = [len(before) + len(answer) for before, answer in parts]
    return read


def _before_and_answer(tokenizer: Tokenizer, turn: str, answer: str) -> tuple[str, str]:
    """What the template puts before the assistant's answer, and the answer."""
    user = {"role": "user", "content": turn}
    both = [user, {"role": "assistant", "content": answer}]
    # Some templates put a space before the answer that a prompt for generation lacks, so both turns are rendered.
    whole = tokenizer.apply_chat_template(both, tokenize=False)
    before, found, _ = whole.rpartition(answer)
    return (before if found else in_chat(tokenizer, [user])), answer


def in_chat(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> str:
    """The messages ({"role", "content"}) in the model's chat template, up to where the assistant's answer begins.

    Raises ModelError for a tokenizer without a chat template.
    """
    if tokenizer.chat_template is None:
        raise ModelError(NO_CHAT)
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def pad(
    sequences: Sequence[Sequence[int]],
    *,
    side: Literal["left", "right"],
    pad_id: int,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Ids (batch, seq) int64, padded to the longest sequence, and their mask (batch, seq) int64, 1 on real tokens."""
    width = max((len(sequence) for sequence in sequences), default=0)
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        span = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        ids[row, span] = torch.tensor(sequence, dtype=torch.int64)
        mask[row, span] = 1
    return ids.to(device), mask.to(device)


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Places of texts of like length, at most `tokens` tokens with the pads, or one text, at a time; no empty texts.

    Any of them that follow each other fall into the same batches when they are all the texts that there are.
    """
    batch: list[int] = []
    for place in sorted((place for place, length in enumerate(lengths) if length), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def prepare(definition: dict[str, Any], folder: Path, *, name: str, source: Path | None = None) -> None:
    """Write the model folder: config.json, model.safetensors, tokenizer files, model.json {name, revision, source}.

    definition: {"kind": "gguf"} with source = the GGUF file or its folder; {"kind": "hub", "repo", "revision"} with
    source = a mirror, or None; {"kind": "folder", "path"}; {"kind": "random", "family", "seed", "layers"};
    {"kind": "rotated", "of", "seed"} with source = the other model's folder. `expect` (any kind, optional) states
    tokenizer facts that must hold: {"bos": 1, "eos": 2, "pad": 2, "encode": {"Hello world": [19556, 905]}}.
    `chat_template` (any kind, optional): Jinja, in place of the tokenizer's own.
    folder: absent or empty. A caller who must not be seen half-way writes to a temporary folder and renames it.
    Raises ModelError with the reason; gguf needs the packages gguf and accelerate.
    """
    kind = definition.get("kind")
    if kind not in _KINDS:
        raise ModelError(f"model {name!r} has kind {kind!r}; give one of {', '.join(_KINDS)}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ModelError(f"{folder} is not empty; give model {name!r} a new folder")
    origin = _KINDS[kind](definition, folder, name, source)
    if "chat_template" in definition:
        (folder / "chat_template.jinja").write_text(definition["chat_template"])
    _sign(folder, name=name, origin=origin)
    _check(folder, name=name, expect=definition.get("expect", {}))


# ---- the kinds: each writes config, weights and tokenizer into `folder` and returns where they came from ----


def _from_gguf(definition: dict[str, Any], folder: Path, name: str, source: Path | None) -> str:
    """Dequantise once to float32. `source` is the GGUF file, or a folder with one such file in it.

    A model read from GGUF calls itself quantised and cannot be saved, so its weights move, strictly, into a fresh model
    of the same config. Reading the result afterwards is a hundred times faster and gives the same logits.
    """
    files = [source] if source and source.is_file() else sorted(source.rglob("*.gguf")) if source else []
    if len(files) != 1:
        raise ModelError(f"model {name!r} needs one GGUF file, {source} gives {len(files)}; pass the file as source")
    source = files[0]
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = type(read.config).from_dict(
        {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    )
    fresh = type(read)(config)
    fresh.load_state_dict(read.state_dict(), strict=True)
    fresh.tie_weights()
    fresh.generation_config = read.generation_config
    _save(fresh, AutoTokenizer.from_pretrained(**where), folder)
    return source.name


def _from_hub(definition: dict[str, Any], folder: Path, name: str, source: Path | None) -> str:
    repo, revision = definition["repo"], definition.get("revision", "")
    where = {"endpoint": definition.get("endpoint"), "mirror": source}
    try:
        hub.fetch(repo, revision, folder, who=f"model {name!r}", files=hub.MODEL, **where)
    except hub.HubError as error:
        raise ModelError(str(error)) from error
    return f"{repo}@{revision}"


def _from_folder(definition: dict[str, Any], folder: Path, name: str, source: Path | None) -> str:
    path = Path(definition["path"])
    if not path.is_dir():
        raise ModelError(f"model {name!r}: {path} is no folder; correct its path, as seen from where the run starts")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"model {name!r}: {path} has no *.safetensors; save the model with safe serialisation first")
    for pattern in hub.MODEL:
        for file in path.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    return path.name


@torch.no_grad()
def _rotated(definition: dict[str, Any], folder: Path, name: str, source: Path | None) -> str:
    """The same function in other coordinates: the residual stream of a Llama model, rotated by a seeded rotation Q.

    The norms' weights g are moved into what reads after them, as a norm without weights commutes with Q; then whatever
    reads the stream gets W diag(g) Q, whatever writes it Q^T W, and the output embeddings E diag(g) Q, untied.
    Source: the rotation that SliceGPT (section 3) and QuaRot use.
    """
    handle = ModelHandle(source or folder)
    model: Any = handle.load()
    if model.config.model_type != "llama":
        raise ModelError(f"model {name!r}: only Llama models can be rotated, {source} is {model.config.model_type}")
    config = type(model.config).from_dict(model.config.to_dict() | {"tie_word_embeddings": False})
    fresh: Any = type(model)(config)
    fresh.load_state_dict(model.state_dict(), strict=True)
    hidden, generator = config.hidden_size, torch.Generator().manual_seed(definition["seed"])
    rotation = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator, dtype=torch.float64)).Q

    def reads(linear: Any, norm: Any = None) -> None:
        scale = norm.weight.double() if norm is not None else torch.ones(hidden, dtype=torch.float64)
        linear.weight.copy_(linear.weight.double() * scale @ rotation)

    for block in fresh.model.layers:
        for projection in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            reads(projection, block.input_layernorm)
        for projection in (block.mlp.gate_proj, block.mlp.up_proj):
            reads(projection, block.post_attention_layernorm)
        for projection in (block.self_attn.o_proj, block.mlp.down_proj):
            projection.weight.copy_(rotation.T @ projection.weight.double())
            if projection.bias is not None:
                projection.bias.copy_(projection.bias.double() @ rotation)
        block.input_layernorm.weight.fill_(1.0)
        block.post_attention_layernorm.weight.fill_(1.0)
    reads(fresh.lm_head, fresh.model.norm)
    reads(fresh.model.embed_tokens)
    fresh.model.norm.weight.fill_(1.0)
    fresh.generation_config = model.generation_config
    _save(fresh, handle.info.tokenizer, folder)
    return f"{handle.info.name} at {handle.info.revision}, rotated by seed {definition['seed']}"


def _random(definition: dict[str, Any], folder: Path, name: str, source: Path | None) -> str:
    from steerlab.tiny_models import byte_tokenizer, tiny_config

    family, seed, layers = definition["family"], definition["seed"], definition["layers"]
    with torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator; it is put back after
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, layers=layers), dtype=torch.float32)
    _save(model, byte_tokenizer(), folder)
    return f"random {family}, seed {seed}, {layers} layers"


_KINDS: dict[str, Callable[[dict[str, Any], Path, str, Path | None], str]] = {
    "gguf": _from_gguf,
    "hub": _from_hub,
    "folder": _from_folder,
    "random": _random,
    "rotated": _rotated,
}


# ---- helpers ----


def _save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="1TB")
    tokenizer.save_pretrained(folder)


def _sign(folder: Path, *, name: str, origin: str) -> None:
    """Write model.json, and name and revision into config.json, from where every loaded model carries them."""
    revision = weights_digest(folder)
    write_json(folder / RECORD, {"name": name, "revision": revision, "source": origin})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"steerlab": {"name": name, "revision": revision}})


def _check(folder: Path, *, name: str, expect: dict[str, Any]) -> None:
    """Open what was written: the tokenizer must be the one expected and the logits finite.

    Releases of transformers read one and the same GGUF with different tokenizers (a begin-of-sequence token in front of
    every text, another end of sequence, no pad), which would spoil every result without an error.
    """
    handle = ModelHandle(folder, attention="eager")  # the one kernel that every family has
    tokenizer = handle.info.tokenizer
    found = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad") if role in expect}
    found["encode"] = {text: tokenizer(text)["input_ids"] for text in expect.get("encode", {})}
    for fact, value in expect.items():
        if found.get(fact) != value:
            raise ModelError(
                f"model {name!r}: the tokenizer's {fact} is {found.get(fact)}, expected {value}; "
                "use the pinned transformers release or correct `expect`"
            )
    with torch.no_grad():
        logits = handle.load()(torch.tensor([encode(tokenizer, "Hello world")])).logits
    if not logits.isfinite().all():
        raise ModelError(f"model {name!r} gives logits that are not finite; the weights of its source are damaged")


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file that holds it."""
    names = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names.update(dict.fromkeys(file.keys(), path))
    return names


# Checkpoint names, by family: GPT-NeoX calls its head embed_out; OPT and GPT-2 nest their embeddings.
_OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")
_INPUT_EMBEDDINGS = (
    *("model.embed_tokens.weight", "transformer.wte.weight", "wte.weight", "gpt_neox.embed_in.weight"),
    *("model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)


def _tied(config: PreTrainedConfig, names: dict[str, Path]) -> bool:
    return bool(config.tie_word_embeddings) and not any(name in names for name in _OUTPUT_EMBEDDINGS)
