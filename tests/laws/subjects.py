"""What the laws are about: an edit of every kind on a tiny model of every family, and every registered method on two.

A method registered later is a subject as soon as it has its line in the registry; no test changes.
"""

import functools
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from steerlab import activations, models, sites
from steerlab.data.control_rows import crossed
from steerlab.experiment.registry import METHODS, Method
from steerlab.methods import load_class
from steerlab.methods.latentqa import Decoder
from steerlab.methods.protocol import Origin, Steer
from steerlab.models import ModelHandle
from steerlab.sites import SCOPES, Edit, Site, Where
from steerlab.tiny_models import FAMILIES, byte_tokenizer, tiny_config

DEVICE = os.environ.get("STEERLAB_DEVICE", "cpu")  # the laws hold on a card as well
LAYERS = 3
METHOD_FAMILIES = ("gpt2", "llama")  # learned positions and a bias everywhere; rotary and grouped queries
WEIGHTS = {"toxicity": 1.0, "sentiment": 0.5}  # of a composition
PARTS = ("caa", "lora", "lm_steer")  # of several at once: states, weights and the output head's input
_TEMPORARY = tempfile.TemporaryDirectory(prefix="steerlab-laws-")  # gone when the tests end
STEERS = tuple(name for name, method in METHODS.items() if method.steer is not None)
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>{% endfor %}"
CHAT += "{% if add_generation_prompt %}[assistant]{% endif %}"


@functools.cache
def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random tiny model whose weights are so large that every token counts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, layers=LAYERS))
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.to(DEVICE).eval().requires_grad_(False)


@functools.cache
def handle(family: str, seed: int = 0) -> ModelHandle:
    """The same as a prepared model folder."""
    folder = Path(tempfile.mkdtemp(dir=_TEMPORARY.name))
    tiny_model(family, seed).save_pretrained(folder / "source")
    byte_tokenizer().save_pretrained(folder / "source")
    definition = {"kind": "folder", "path": str(folder / "source")}
    models.prepare(definition, folder / "model", name=f"tiny-{family}-{seed}")
    return ModelHandle(folder / "model", device=DEVICE)


def every_site(layers: int = LAYERS) -> list[Site]:
    """Every site of a model, from its input to its output."""
    blocks = [Site(name, layer) for layer in range(layers) for name in ("attention_heads", "block_output")]
    return [Site("embeddings"), *blocks, Site("lm_head_input"), Site("logits")]


def training_texts() -> pd.DataFrame:
    """Ten texts, six wished and four unwished; columns id, label, text."""
    wished = ["thank you", "how kind", "well done", "lovely day", "good job", "yes please"]
    unwished = ["go away", "you fool", "shut up", "I hate it"]
    texts = wished + unwished
    labels = [1.0] * len(wished) + [-1.0] * len(unwished)
    return pd.DataFrame({"id": [f"id{i}" for i in range(len(texts))], "label": labels, "text": texts})


def fit(method: str, family: str, seed: int = 0) -> Steer:
    """A registered method fitted on the training texts, or derived from one that is, by its default hyperparameters."""
    line = METHODS[method]
    if line.is_derived:
        return _derived(line, family, seed)
    if line.asks_reader:
        data = crossed([[{"role": "user", "content": text}] for text in training_texts().text], [("How?", "Well.")])
        return load_class(line.steer).fit(chatting(family), data, None, seed=seed, reader=reader(family))
    model, data = handle(family), training_texts()
    captured = None
    if line.captures:
        captured = capture(model, list(data.text), line.captures, line.positions)
    return load_class(line.steer).fit(model, data, captured, seed=seed)


fitted = functools.cache(fit)


@functools.cache
def chatting(family: str) -> ModelHandle:
    """The tiny model with a chat template."""
    folder = Path(tempfile.mkdtemp(dir=_TEMPORARY.name)) / "model"
    shutil.copytree(handle(family).folder, folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return ModelHandle(folder, device=DEVICE)


@functools.cache
def reader(family: str) -> Decoder:
    """A decoder of the tiny model that has hardly learnt to read."""
    data = crossed([[{"role": "user", "content": text}] for text in training_texts().text], [("How?", "So so.")])
    return Decoder.fit(chatting(family), data, seed=0, updates=2, batch_rows=2)


def _derived(line: Method, family: str, seed: int) -> Steer:
    """From one steer of the same model, or from as many as it wants weights for: of other seeds, for want of tasks; or
    from those of PARTS."""
    module, _, function = line.derive.partition(":")
    derive = getattr(import_module(module), function)
    if line.has_parts:
        steers = {name: fitted(name, family, seed) for name in PARTS}
        picks = {PARTS[0]: {"steps": 0, "strength": 0.5}}
        origin = Origin(steers, handle(family), (), strength=0.5, seed=seed, picks=picks)
        return derive(handle(family), origin, parts=PARTS)
    weights = {"weights": WEIGHTS} if "weights" in inspect.signature(derive).parameters else {}
    tasks = list(WEIGHTS) if weights else ["toxicity"]
    steers = {task: fitted(line.derived_from, family, seed + i) for i, task in enumerate(tasks)}
    prompts = tuple(training_texts().text)
    return derive(handle(family), Origin(steers, handle(family), prompts, strength=1.0, seed=seed), **weights)


def capture(
    model: ModelHandle, texts: list[str], site: str, positions: activations.Positions = "all", batch_rows: int = 4
) -> activations.Activations:
    """The states of texts at a site, in a store that is gone when the tests end."""
    rows = activations.select(model.info.tokenizer, texts, positions)
    store = Path(tempfile.mkdtemp(dir=_TEMPORARY.name))
    return activations.capture(model, rows, site, folder=store, batch_rows=batch_rows, shard_rows=4)


@dataclass(frozen=True)
class Subject:
    """A way of attaching something to a model. changes: False for what must leave the logits as they are."""

    name: str
    family: str
    attached: Callable[[PreTrainedModel], AbstractContextManager[None]]
    changes: bool = True
    is_steer: bool = False

    @property
    def model(self) -> PreTrainedModel:
        return handle(self.family).load() if self.is_steer else tiny_model(self.family)

    def __str__(self) -> str:
        return f"{self.family}-{self.name}"


def _edits(family: str) -> list[Subject]:
    def subject(name: str, edits: dict[Site, Edit], scope: str, changes: bool = True) -> Subject:
        attached = functools.partial(sites.edit, edits=edits, scope=scope)
        return Subject(f"{name}-{scope}", family, attached, changes)

    kinds = (
        ("nothing", dict.fromkeys(every_site(), _nothing), False),
        ("vector", dict.fromkeys(every_site(), _vector), True),
        ("head", {Site("attention_heads", 1): _head}, True),
    )
    return [subject(name, edits, scope, changes) for scope in SCOPES for name, edits, changes in kinds]


def _nothing(x: Tensor, where: Where) -> Tensor:
    return x.clone()  # a new tensor of the same bytes, so that scopes and reshapes are not skipped


def _vector(x: Tensor, where: Where) -> Tensor:
    return x + 0.3 * torch.linspace(-1, 1, x.shape[-1], device=x.device)


def _head(x: Tensor, where: Where) -> Tensor:
    """One head's output grows with the position, the other way after the prompt: wrong positions show in the logits."""
    sign = where.is_prompt.to(x.dtype) * 2 - 1
    edited = x.clone()
    edited[:, :, 2] += (0.2 * sign * (1 + where.position))[..., None]
    return edited


def _steers(family: str) -> list[Subject]:
    return [
        Subject(method, family, lambda model, method=method: fitted(method, family).attached(model), is_steer=True)
        for method in STEERS
    ]


SUBJECTS = [subject for family in FAMILIES for subject in _edits(family)]
SUBJECTS += [subject for family in METHOD_FAMILIES for subject in _steers(family)]
CHANGING = [subject for subject in SUBJECTS if subject.changes]
UNCHANGING = [subject for subject in SUBJECTS if not subject.changes]
