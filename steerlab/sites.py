"""Named places in a transformer, and the only code of this project that registers hooks or swaps modules.

`edit` changes the hidden states at chosen sites while a `with` lasts, `capture` reads them, `modules` swaps modules.
One rule says which tokens are edited, alike in prefill, cached decoding, full recompute and scoring: see `edit`.
Several contexts may be open on one model: at a site, edits act in the order in which they were opened, and a capture
sees what the edits opened before it made of the states.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from steerlab.positions import SCOPES, PositionError, Prompts, Scope, Tokens, Where, forward_mask, generate_mask

__all__ = ["SCOPES", "Edit", "Scope", "Site", "SiteError", "Where"]
__all__ += [
    "Family",
    "adapter_paths",
    "before_blocks",
    "block",
    "capture",
    "capture_around",
    "continuing",
    "device_of",
    "edit",
    "family",
    "first_blocks",
    "forwards",
    "kept",
    "layer_index",
    "layers_of",
    "modules",
    "number_of_layers",
    "prompt",
    "without_head",
]


class SiteError(ValueError):
    """A site or a call that cannot be served; the message says which and what to do."""


@dataclass(frozen=True)
class Site:
    """A place in a transformer.

    name            | states, as `edit` and `capture` show them            | layer
    embeddings      | (batch, seq, hidden), what enters block 0            | None
    block_output    | (batch, seq, hidden), what leaves the block          | 0 .. layers - 1
    attention_heads | (batch, seq, heads, head size), what the attention's
                      output projection mixes                              | 0 .. layers - 1
    lm_head_input   | (batch, kept, hidden), after the final norm          | None
    logits          | (batch, kept, vocab)                                 | None

    `kept` is seq unless the forward is given logits_to_keep. transformers' hidden_states[0] is `embeddings`,
    hidden_states[i + 1] is `block_output` of layer i, except its last entry, which is after the final norm.
    """

    name: str
    layer: int | None = None


Edit = Callable[[Tensor, Where], Tensor]


@contextmanager
def edit(model: PreTrainedModel, edits: Mapping[Site, Edit], *, scope: Scope = "all") -> Iterator[None]:
    """Inside the `with`, the states x at each site become fn(x, where) at the tokens in scope; then all is as before.

    edits: site -> fn. fn must not change x in place and must return its shape and dtype; a steer without effect returns
    x itself, and the logits are then those of the base model bit for bit. Pads may be edited too: nothing reads them.
    scope: "all" tokens, or "from_last_prompt_token". What the prompt is comes from `model.generate` (this shadows it on
    the instance), from `prompt`, or else from the forward: an empty cache is a prompt of its own length (as far as its
    mask goes), a filled one is after the prompt.
    Raises SiteError for an unknown family, site or scope, a layer out of range, or an fn that changes shape or dtype.
    """
    if scope not in SCOPES:
        raise SiteError(f"unknown scope {scope!r}; choose one of {', '.join(SCOPES)}")
    places = {site: _place(model, site) for site in edits}
    with _changing(model), _following(model) as forwards, ExitStack() as stack:
        for site, fn in edits.items():
            visit = functools.partial(_edit_states, forwards, site, fn, scope)
            stack.callback(_attach(places[site], visit).remove)
        yield


@contextmanager
def capture(model: PreTrainedModel, sites: Iterable[Site]) -> Iterator[dict[Site, Tensor]]:
    """Inside the `with`, the yielded dict holds each site's states of the latest forward (shapes: see `Site`).

    The tensors are the model's own: not copied, not detached, not to be changed in place.
    Raises SiteError as `edit` does.
    """
    places = {site: _place(model, site) for site in sites}
    states: dict[Site, Tensor] = {}
    with _changing(model), ExitStack() as stack:
        for site, place in places.items():
            stack.callback(_attach(place, functools.partial(states.__setitem__, site)).remove)
        yield states


@contextmanager
def capture_around(
    model: PreTrainedModel, sites: Iterable[Site], attached: AbstractContextManager[None], further: Iterable[Site] = ()
) -> Iterator[tuple[dict[Site, Tensor], dict[Site, Tensor]]]:
    """Inside the `with`, what is attached steers the model; the dicts hold each site's states as the edit is given them
    and as it leaves them, and the second those of further sites, all in one forward. attached: not yet entered."""
    sites = list(sites)
    with capture(model, sites) as before, attached, capture(model, dict.fromkeys([*sites, *further])) as after:
        yield before, after


@contextmanager
def prompt(model: PreTrainedModel, lengths: Sequence[int] | Tensor, mask: Tensor) -> Iterator[None]:
    """Inside the `with`, forwards (other than generate's own) continue these prompts, whatever caches they use.

    lengths: (batch,), real tokens of each row's prompt. mask: (batch, columns), 1 on real tokens; it covers the columns
    known so far, cached ones included, on either side padded, with or without a continuation; columns after it are real
    tokens. A forward of n times as many rows has n neighbouring rows a prompt.
    Raises PositionError for a length outside 1 .. the row's real tokens.
    """
    with _following(model) as forwards:
        outer, forwards.prompt = forwards.prompt, Prompts.noted(mask.to(model.device), lengths)
        try:
            yield
        finally:
            forwards.prompt = outer


@contextmanager
def continuing(model: PreTrainedModel) -> Iterator[None]:
    """Inside the `with`, all tokens of forwards come after the prompts, at the positions in their `position_ids`.

    Nothing is counted along in Python, so such a forward can be recorded and replayed. Raises PositionError without
    position_ids.
    """
    with _following(model) as forwards:
        outer, forwards.continues = forwards.continues, True
        try:
            yield
        finally:
            forwards.continues = outer


def kept(model: PreTrainedModel) -> dict[str, Any]:
    """A place for what holds as long as what is attached to the model stays as it is: emptied at every change of it."""
    return _KEPT.setdefault(model, {})


@contextmanager
def modules(model: PreTrainedModel, replacements: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside the `with`, the model has these modules (path -> module) in place of its own; open it before `edit`.

    Raises SiteError for a path that the model does not have.
    """
    own = {path: _submodule(model, path) for path in replacements}
    with _changing(model):
        try:
            for path, module in replacements.items():
                model.set_submodule(path, module)
            yield
        finally:
            for path in reversed(own):
                model.set_submodule(path, own[path])


@contextmanager
def without_head(model: PreTrainedModel) -> Iterator[None]:
    """Inside the `with`, the model's logits are the states at `lm_head_input`: no (tokens, vocab) product is made."""
    with modules(model, {"lm_head": nn.Identity()}):
        yield


@contextmanager
def first_blocks(model: PreTrainedModel, count: int) -> Iterator[None]:
    """Inside the `with`, the model has its first blocks alone: what these give stays, what follows means nothing."""
    path = family(model).blocks
    kept = list(_submodule(model, path).children())[:count]
    with modules(model, {path: nn.ModuleList(kept)}):
        yield


def device_of(model: PreTrainedModel, site: Site) -> torch.device:
    """Where the states of a site are when an edit sees them: of a model over several cards, the card of that place."""
    return _place(model, site).device or model.device


def layers_of(config: Any, name: str) -> tuple[int | None, ...]:
    """The layers of the site of this name: every block, or None alone for a site without layers."""
    return tuple(range(number_of_layers(config))) if name in _LAYERED else (None,)


def number_of_layers(config: Any) -> int:
    """The number of blocks of a model with this transformers config."""
    return config.num_hidden_layers


def layer_index(config: Any, layer: float) -> int:
    """The index of a block from a setting: below 1 a share of the depth (0.5 of 30 is block 15), else the index itself.

    Raises SiteError for a layer that the model does not have.
    """
    layers = number_of_layers(config)
    index = layer * layers // 1 if layer < 1 else layer
    if index != int(index) or not 0 <= index < layers:
        raise SiteError(
            f"layer {layer} is no block of this model; give a share below 1, or an index up to {layers - 1}"
        )
    return int(index)


@contextmanager
def before_blocks(
    model: PreTrainedModel, layers: Iterable[int], visit: Callable[[int, tuple[Any, ...], dict[str, Any]], None]
) -> Iterator[None]:
    """Inside the `with`, visit(layer, args, kwargs) is called with what each of these blocks is about to be given.

    args[0]: the states that enter the block, (batch, seq, hidden), as the edits opened before it made them.
    """

    def before(layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visit(layer, args, kwargs)

    with _changing(model), ExitStack() as stack:
        for layer in layers:
            hook = functools.partial(before, layer)
            stack.callback(block(model, layer).register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


@contextmanager
def forwards(model: PreTrainedModel, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the `with`, a call of the model is forward(original, *args, **kwargs), original being its own forward."""
    original = model.forward
    with _changing(model):
        model.forward = functools.wraps(original)(functools.partial(forward, original))
        try:
            yield
        finally:
            del model.forward


# ---- the families: where each keeps its blocks, and what lies inside a block ----


@dataclass(frozen=True)
class Family:
    """Paths of a model: its blocks and the norm after them; inside a block, the attention's output projection and the
    module whose output the MLP adds to the residual stream."""

    blocks: str
    final_norm: str
    output_projection: str
    mlp: str = "mlp"

    @property
    def attention(self) -> str:
        """The module inside a block that holds the output projection; it gives (output, weights)."""
        return self.output_projection.rpartition(".")[0]


_LLAMA_LIKE = Family("model.layers", "model.norm", "self_attn.o_proj")
_FAMILIES = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "gpt2": Family("transformer.h", "transformer.ln_f", "attn.c_proj"),
    "gpt_neo": Family("transformer.h", "transformer.ln_f", "attn.attention.out_proj"),
    "gpt_neox": Family("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention.dense"),
    "gptj": Family("transformer.h", "transformer.ln_f", "attn.out_proj"),
    "opt": Family("model.decoder.layers", "model.decoder.final_layer_norm", "self_attn.out_proj", "fc2"),
}
_LAYERED = ("block_output", "attention_heads")
_UNLAYERED = ("embeddings", "lm_head_input", "logits")


def family(model: PreTrainedModel) -> Family:
    """Where this model keeps its parts; raises SiteError for a family that is not in the table."""
    found = _FAMILIES.get(model.config.model_type)
    if found is None:
        known = ", ".join(_FAMILIES)
        raise SiteError(f"no sites are known for model family {model.config.model_type!r}; known are {known}")
    return found


def block(model: PreTrainedModel, layer: int) -> nn.Module:
    """A block of the model; raises SiteError for one that it does not have."""
    return _submodule(model, f"{family(model).blocks}.{layer}")


def adapter_paths(model: PreTrainedModel, layer: int) -> tuple[str, str]:
    """Where adapters of a block stand: its attention's output projection, and its MLP."""
    parts = family(model)
    return f"{parts.blocks}.{layer}.{parts.output_projection}", f"{parts.blocks}.{layer}.{parts.mlp}"


@dataclass(frozen=True)
class _Place:
    """A site of one model: what a module takes in or gives out, seen as `heads` where given."""

    module: nn.Module
    side: Literal["input", "output", "logits"]
    heads: int | None = None

    @property
    def device(self) -> torch.device | None:
        """Where the module computes; None for one without parameters, which computes where its input is."""
        # accelerate's hooks, of a model over several devices, say it also for weights that are not there all the time.
        hook = getattr(self.module, "_hf_hook", None)
        told = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", (hook,))]
        if device := next((each for each in told if each is not None), None):
            return torch.device(device)
        parameter = next(self.module.parameters(), None)
        return None if parameter is None else parameter.device


def _place(model: PreTrainedModel, site: Site) -> _Place:
    parts = family(model)
    if site.name not in _LAYERED + _UNLAYERED:
        raise SiteError(f"unknown site {site.name!r}; choose one of {', '.join(_UNLAYERED + _LAYERED)}")
    if site.name in _UNLAYERED and site.layer is not None:
        raise SiteError(f"site {site.name!r} has no layers, got layer {site.layer}; leave it out")
    layers = number_of_layers(model.config)
    if site.name in _LAYERED and not (isinstance(site.layer, int) and 0 <= site.layer < layers):
        raise SiteError(f"site {site.name!r} has layers 0 to {layers - 1} in this model, got layer {site.layer}")

    if site.name == "logits":
        return _Place(model, "logits")
    if site.name == "lm_head_input":
        return _Place(_submodule(model, "lm_head"), "input")
    place = block(model, site.layer or 0)
    if site.name == "embeddings":
        return _Place(place, "input")
    if site.name == "block_output":
        return _Place(place, "output")
    projection = _submodule(place, parts.output_projection)
    return _Place(projection, "input", _heads(model.config, projection))


def _heads(config: Any, projection: nn.Module) -> int:
    """The number of attention heads, checked: the projection's width need not be hidden, nor a head hidden / heads."""
    heads, stated = config.num_attention_heads, getattr(config, "head_dim", None)
    width = int(
        getattr(projection, "in_features" if hasattr(projection, "in_features") else "nx")
    )  # nx: GPT-2's Conv1D
    if width % heads or (stated and width != heads * stated):
        raise SiteError(
            f"the attention output projection is {width} wide, which is not {heads} heads of {stated or 'equal'} size; "
            "correct num_attention_heads and head_dim in the model's config"
        )
    return heads


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise SiteError(f"{type(model).__name__} has no module {path!r}; name one of its named_modules()") from error


# ---- hooks ----


def _attach(place: _Place, visit: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Show the place's states to `visit` at every forward and put what it returns in their stead (None: leave them)."""

    device = place.device

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # What enters the first block of a card comes from another one; accelerate would move it after this.
        states = args[0] if device is None else args[0].to(device)
        edited = visit(states.unflatten(-1, (place.heads, -1)) if place.heads else states)
        return None if edited is None else (edited.flatten(-2) if place.heads else edited, *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return visit(output)
        edited = visit(output[0])  # the blocks of some families return (hidden states, attention weights)
        return None if edited is None else (edited, *output[1:])

    def after_model(model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, ModelOutput):
            raise SiteError("the site 'logits' reads the model's output by name; call it without return_dict=False")
        edited = visit(output["logits"])
        if edited is not None:
            if output.get("loss") is not None:
                raise SiteError("the loss was computed before the logits were edited; compute it from output.logits")
            output["logits"] = edited

    if place.side == "input":
        return place.module.register_forward_pre_hook(before)
    return place.module.register_forward_hook(after if place.side == "output" else after_model)


def _edit_states(forwards: "_Forwards", site: Site, fn: Edit, scope: Scope, states: Tensor) -> Tensor | None:
    tokens = forwards.tokens_at(site)
    in_scope = True if scope == "all" else tokens.in_scope
    if in_scope is False:
        return None
    edited = fn(states, dataclasses.replace(tokens.where.on(states.device), layer=site.layer))
    if edited is states:
        return None
    if edited.shape != states.shape or edited.dtype != states.dtype:
        raise SiteError(
            f"the edit at {site} made {edited.dtype} of shape {tuple(edited.shape)} out of {states.dtype} "
            f"{tuple(states.shape)}; return the same shape and dtype"
        )
    if in_scope is not True:
        in_scope = in_scope.to(states.device)
        edited = torch.where(in_scope.reshape(*in_scope.shape, *[1] * (states.ndim - 2)), edited, states)
    if site.name == "lm_head_input" and edited.stride() != states.stride():
        # logits_to_keep cuts a view, and the head's product rounds by layout: without this, not bit for bit the base.
        edited = torch.empty_strided(states.shape, states.stride(), dtype=states.dtype, device=states.device).copy_(
            edited
        )
    return edited


# ---- following a model: what its forwards are about ----


class _Forwards:
    """Follows one model's forwards while edits or prompts are open on it: one pre-hook, and `generate` shadowed."""

    def __init__(self, model: PreTrainedModel):
        self.users = 0
        self.prompt: Prompts | None = None
        self.continues = False
        self._columns_generated: int | None = None
        self._body: Tokens | None = None
        self._head: Tokens | None = None
        self._logits: Tokens | None = None
        self._arguments = tuple(inspect.signature(model.forward).parameters)
        self._undo = ExitStack()
        self._undo.callback(model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
        self._undo.callback(model.register_forward_hook(self._end, always_call=True).remove)
        self._shadow_generate(model)

    def close(self) -> None:
        self._undo.close()

    def tokens_at(self, site: Site) -> Tokens:
        # The logits' own hook comes after `_end`, for it is the same module's and was registered later.
        tokens = {"logits": self._logits, "lm_head_input": self._head}.get(site.name, self._body)
        if tokens is None:
            raise SiteError(f"{site} is edited but only a part of the model was called; call the whole model")
        return tokens

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(zip(self._arguments, args, strict=False)) | kwargs
        self._body = self._tokens(given)
        self._head = self._logits = self._body.kept(given.get("logits_to_keep", 0))

    def _tokens(self, given: Mapping[str, Any]) -> Tokens:
        """Those of the forward with these arguments."""
        if self.continues:
            if given.get("position_ids") is None:
                raise PositionError("a forward that continues prompts does not say where; give it position_ids")
            return Tokens.after_prompts(given["position_ids"])
        states = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        rows, seq = states.shape[:2]
        start = self._columns_before(given.get("past_key_values"))
        prompts = self.prompt
        if prompts is None:
            prompts = Prompts.guessed(forward_mask(given.get("attention_mask"), states, start + seq), start)
        if self._columns_generated is not None:
            self._columns_generated = start + seq
        return Tokens.of_columns(prompts.for_rows(rows), start, start + seq)

    def _end(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._body = self._head = None

    def _columns_before(self, cache: Any) -> int:
        if cache is None:
            return 0
        length = cache.get_seq_length()
        if isinstance(length, int):
            return length
        # A static cache counts on its device. generate's columns are counted along instead of waiting for it.
        return int(length) if self._columns_generated is None else self._columns_generated

    def _shadow_generate(self, model: Any) -> None:
        shadowed = {"generate": model.generate} if "generate" in model.__dict__ else {}
        original = model.generate

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            outer = self.prompt, self._columns_generated
            inputs = args[0] if args else kwargs.get("inputs")
            self.prompt = Prompts.noted(generate_mask(model, inputs, kwargs).to(model.device))
            cache = kwargs.get("past_key_values")
            self._columns_generated = 0 if cache is None else int(cache.get_seq_length())
            if model.device.type != "cpu":
                # There generate compiles the forward of a static cache; hooks that count columns would recompile it.
                kwargs.setdefault("disable_compile", True)
            try:
                return original(*args, **kwargs)
            finally:
                self.prompt, self._columns_generated = outer

        model.generate = generate
        self._undo.callback(model.__dict__.update, shadowed)
        self._undo.callback(model.__dict__.pop, "generate")


_FORWARDS: WeakKeyDictionary[nn.Module, _Forwards] = WeakKeyDictionary()
_KEPT: WeakKeyDictionary[nn.Module, dict[str, Any]] = WeakKeyDictionary()


@contextmanager
def _changing(model: PreTrainedModel) -> Iterator[None]:
    """What was kept for the model as it is goes, before the `with` and after it."""
    _KEPT.pop(model, None)
    try:
        yield
    finally:
        _KEPT.pop(model, None)


@contextmanager
def _following(model: PreTrainedModel) -> Iterator[_Forwards]:
    if model not in _FORWARDS:
        _FORWARDS[model] = _Forwards(model)
    forwards = _FORWARDS[model]
    forwards.users += 1
    try:
        yield forwards
    finally:
        forwards.users -= 1
        if not forwards.users:
            del _FORWARDS[model]
            forwards.close()
