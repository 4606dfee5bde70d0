"""What a saved steer edits, told from its files: its record and the shapes of its tensors. No model is opened."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open


@dataclass(frozen=True)
class Saved:
    """A steer as its files tell, without a model: the record, and the shape of each tensor by name; the same of its
    parts, and their tensors' shapes again under `<part>/`."""

    record: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    parts: "Mapping[str, Saved]" = field(default_factory=dict)


def saved(folder: Path) -> Saved:
    """Read a saved steer's record and shapes; raises ValueError for a folder that holds none."""
    files = [folder / "steer.json", folder / "steer.safetensors"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{folder} holds no steer: it has no {missing[0]}; name results/steers/model/method/task/seed")
    with safe_open(files[1], framework="np") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    record = json.loads(files[0].read_text())
    parts = {name: saved(folder / name) for name in record["config"].get("parts", {})}
    of_parts = {f"{name}/{tensor}": shape for name, part in parts.items() for tensor, shape in part.shapes.items()}
    return Saved(record, shapes | of_parts, parts)


def edits(steer: Saved) -> str:
    """What a saved steer edits, in a phrase, from its record and its tensors' shapes."""
    of_method = _EDITS.get(steer.record["method"], _any)
    random = ", with random directions in place of the learnt ones" if steer.record["config"].get("random") else ""
    return of_method(steer) + random


def _any(steer: Saved) -> str:
    return f"the states at {_places(steer)}" if steer.record["sites"] else "the model's weights"


def _composed(steer: Saved) -> str:
    own = {name: part["strength"] for name, part in steer.record["config"]["parts"].items()}
    return "; ".join(f"{edits(part)} (at strength {own[name]:g})" for name, part in steer.parts.items())


def _caa(steer: Saved) -> str:
    times = steer.record["config"]["multiplier"]
    return f"adds {times:g} times a vector to the states at {_places(steer)}, {_FROM_PROMPT}"


def _hpr(steer: Saved) -> str:
    config = steer.record["config"]
    verb, by = "reflects", ""
    if config["angle"] == "net":
        verb, by = "turns", f" by an angle that a net of depth {config['angle_net_layers']} gives"
    return f"{verb} states at {_places(steer)} that a probe calls unwished{by}, at their own length, {_ALL}"


def _iti(steer: Saved) -> str:
    chosen = steer.record["selection"]["candidates"][: steer.record["selection"]["pick"]]
    heads = pd.DataFrame(chosen).groupby("layer")["head"].apply(_ranges)
    named = "; ".join(f"layer {layer}: {those}" for layer, those in heads.items())
    alpha = steer.record["config"]["alpha"]
    each = f"by {alpha:g} standard deviations along a direction of its own"
    return f"moves each of {len(chosen)} attention heads {each} ({named}), {_FROM_PROMPT}"


def _slim(steer: Saved) -> str:
    config, heads = steer.record["config"], steer.shapes["matrix"][1]
    votes = ", ".join(map(str, config["thresholds"]))
    return (
        f"moves the heads that call a state unwished by an affine map each (κ {config['kappa']:g}), where at least "
        f"{votes} of {heads} do, at {_places(steer)}, {_FROM_PROMPT}"
    )


def _low_rank(steer: Saved) -> str:
    config = steer.record["config"]
    modules = [name.rpartition(".")[0].split(".") for name in steer.shapes]
    layers = _layers(int(part) for path in modules for part in path if part.isdigit())
    kinds = ", ".join(dict.fromkeys(path[-1] for path in modules))
    return f"adds a change of rank {config['rank']} (α {config['alpha']:g}) to {kinds} of {layers}, {_ALL}"


def _lm_steer(steer: Saved) -> str:
    config = steer.record["config"]
    left = next((shape for name, shape in steer.shapes.items() if name.endswith("projector1")), None)
    linear = f"ε = {config['eps']:.3g} times a linear map of itself of {f'rank {left[-1]}' if left else 'full rank'}"
    what = {"multiply": linear, "add": f"ε = {config['eps']:.3g} times a vector"}.get(config["adaptor"], "an offset")
    return f"adds {what} to the states at {_places(steer)}, {_ALL}"


def _cogsteer(steer: Saved) -> str:
    config = steer.record["config"]
    blocks = _ranges(config["blocks"])
    return (
        f"takes off, at {_places(steer)}, what the model with a bottleneck adapter (1/{config['reduction']} of the "
        f"width) in block {blocks} would do, {_FROM_PROMPT}"
    )


_FROM_PROMPT, _ALL = "from the last prompt token on", "at all tokens"
_EDITS: dict[str, Callable[[Saved], str]] = {  # by the method's file
    "caa": _caa,
    "hpr": _hpr,
    "iti": _iti,
    "slim": _slim,
    "lora": _low_rank,
    "latentqa_control": _low_rank,
    "lm_steer": _lm_steer,
    "cogsteer": _cogsteer,
    "composed": _composed,
}


def _places(steer: Saved) -> str:
    """The sites by name, with their layers."""
    layers: dict[str, list[int]] = {}
    for site in steer.record["sites"]:
        layers.setdefault(site["name"], []).extend([] if site["layer"] is None else [site["layer"]])
    named = [(SITES.get(name, name.replace("_", " ")), of) for name, of in layers.items()]
    return " and ".join(f"{name} of {_layers(of)}" if of else name for name, of in named)


SITES = {
    "block_output": "the block output",
    "attention_heads": "the attention heads",
    "lm_head_input": "the output head's input",
    "logits": "the logits",
}


def _layers(given: Iterable[int]) -> str:
    layers = set(given)
    return f"layer{'s' * (len(layers) > 1)} {_ranges(layers)}"


def _ranges(given: Iterable[int]) -> str:
    """(3, 1, 2, 7) as "1–3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(given)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
