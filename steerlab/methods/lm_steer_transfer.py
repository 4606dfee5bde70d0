"""LM-Steer on another model: the change of one model's word embeddings, mapped to another's by an explicit formula.

With H the map between the output embeddings of the words that both models know, E_target ~ E_source H, the logits
c W E^T are kept if W' = H^T W H^{-T}, that is P1' = H^T P1 and P2' = G P2 with E_source ~ E_target G. For an orthogonal
H this is the paper's W' = H^T W H. Both maps are found by least squares in closed form.

Source: LM-Steer, section on transferring, and its transfer script. The code trains one map by Adam, normalises its rows
and maps both projectors by it: `official_code`.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from steerlab.methods.lm_steer import LMSteer
from steerlab.methods.protocol import Origin
from steerlab.models import ModelHandle
from steerlab.progress import progress

Solver = Literal["least_squares", "official_code"]

OFFICIAL_WORDS, OFFICIAL_STEPS, OFFICIAL_RATE = 4000, 5000, 1e-2  # in the code, whatever its flag says


def transferred(model: ModelHandle, origin: Origin, *, solver: Solver = "least_squares") -> LMSteer:
    """The one steer of `origin`, multiply, for `model`.

    Raises ValueError for another adaptor and for models that share fewer words than the wider one has dimensions.
    """
    (steer,) = origin.steers.values()
    if steer.record.config["adaptor"] != "multiply":
        raise ValueError(f"only multiply can be transferred, this is {steer.record.config['adaptor']}; train that")
    source, target = shared_embeddings(origin.model, model)
    tensors = mapped(steer.tensors, source, target, solver)
    return steer.made_into(
        tensors, config={"transferred_from": steer.record.model, "solver": solver},
        model=model.info.name, revision=model.info.revision,
    )  # fmt: skip


def mapped(tensors: Mapping[str, Tensor], source: Tensor, target: Tensor, solver: Solver) -> dict[str, Tensor]:
    """Projectors for the target. source: (words, hidden), target: (words, hidden'), float64, embeddings of the same
    words; tensors: projector1 and projector2, (steers, hidden, rank), or matrix, (steers, hidden, hidden)."""
    if solver == "official_code":
        left = right = _official_map(source, target)
    else:
        left = torch.linalg.lstsq(source, target).solution.T  # H^T, (hidden', hidden)
        right = torch.linalg.lstsq(target, source).solution  # G, (hidden', hidden)
    if "matrix" in tensors:
        return {"matrix": (left @ tensors["matrix"].double() @ right.T).float()}
    return {
        "projector1": (left @ tensors["projector1"].double()).float(),
        "projector2": (right @ tensors["projector2"].double()).float(),
    }


def shared_embeddings(source: ModelHandle, target: ModelHandle) -> tuple[Tensor, Tensor]:
    """Output embeddings, (words, hidden) float64 on the CPU, of the words that both vocabularies have, in one order."""
    ids, other_ids = (handle.info.tokenizer.get_vocab() for handle in (source, target))
    words = sorted(ids.keys() & other_ids.keys(), key=ids.__getitem__)
    tables = source.output_embeddings(), target.output_embeddings()
    words = [word for word in words if ids[word] < len(tables[0]) and other_ids[word] < len(tables[1])]
    least = max(table.shape[1] for table in tables)
    if len(words) < least:
        raise ValueError(
            f"{source.info.name} and {target.info.name} share {len(words)} words, a map needs {least}; "
            "transfer between models whose vocabularies are alike"
        )
    return (
        tables[0][[ids[word] for word in words]].double().cpu(),
        tables[1][[other_ids[word] for word in words]].double().cpu(),
    )


def _official_map(source: Tensor, target: Tensor) -> Tensor:
    """B, (hidden', hidden), its rows of norm 1: E_target B ~ E_source on the first words, by Adam."""
    source, target = source[:OFFICIAL_WORDS].float(), target[:OFFICIAL_WORDS].float()
    generator = torch.Generator().manual_seed(0)
    backward = (0.01 * torch.randn(target.shape[1], source.shape[1], generator=generator)).requires_grad_()
    adam = torch.optim.Adam([backward], lr=OFFICIAL_RATE)
    for _ in progress(range(OFFICIAL_STEPS), total=OFFICIAL_STEPS, desc="map between embeddings", unit="step"):
        adam.zero_grad()
        (target @ backward - source).square().mean().backward()
        adam.step()
    backward = backward.detach().double()
    return backward / backward.norm(dim=1, keepdim=True)
