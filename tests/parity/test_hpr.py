"""HPR against VinAIResearch/HPR: the reflection, the edit on a model, and the training loss."""

from dataclasses import dataclass, field
from math import acos, pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from steerlab.methods import hpr_training
from steerlab.methods.hpr import HPR, angle_to_reflection, householder_reflect, pseudo_rotation
from tests.laws.subjects import capture, handle, training_texts
from tests.parity.official import compare, definitions

FOLDER = "activation_editing"
HIDDEN, NET_LAYERS = 16, 3
CLIPPED = acos(1 - 1e-7)  # the least angle that the official code knows, as it clips cosines there


def utilities() -> Any:
    names = ("EPSILON", "get_householder_matrix", "batched_dot_product", "calculate_angle")
    return definitions("HPR", f"{FOLDER}/utils/utils.py", *names, torch=torch)


def guidance(tensors: dict[str, Tensor]) -> Any:
    """The official module of one layer with our probe and angle net, tensors as `hpr_training.initial` names them."""
    where, used = f"{FOLDER}/model/guidance", utilities()
    config = definitions(
        "HPR", f"{where}/config.py", "GuidanceConfig", PushToHubMixin=object, dataclass=dataclass, field=field
    )
    base = definitions("HPR", f"{where}/base.py", "GuidanceModule", nn=nn)
    found = definitions(
        "HPR", f"{where}/householder.py", "AngleRegressionModel", "HouseholderGuidanceModule", torch=torch, nn=nn,
        GuidanceModule=base.GuidanceModule, calculate_angle=used.calculate_angle,
        get_householder_matrix=used.get_householder_matrix, np=torch,  # numpy for its pi alone, which torch has too
    )  # fmt: skip
    settings = config.GuidanceConfig(base_model_hidden_size=HIDDEN, num_guidance_module_layers=NET_LAYERS)
    module = found.HouseholderGuidanceModule(settings).to(tensors["probe"].dtype)
    module.lr_model.weight.data = tensors["probe"][0][None]
    linear = [part for part in module.angle_model.model if isinstance(part, nn.Linear)]
    for n, part in enumerate(linear):
        part.weight.data, part.bias.data = tensors[f"weight_{n}"][0].T, tensors[f"bias_{n}"][0]
    return module


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def begun(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    tensors = hpr_training.initial(HIDDEN, [0], NET_LAYERS, seed=0)
    return {name: 4 * tensor.to(dtype) for name, tensor in tensors.items()}


def test_the_reflection() -> None:
    states, normal = drawn(50, HIDDEN), drawn(HIDDEN, seed=1)
    theirs = states @ utilities().get_householder_matrix(normal[None])
    compare("HPR, reflection", householder_reflect(states, normal), theirs, 1e-12)
    angle = utilities().calculate_angle(states, theirs)[..., 0]
    compare("HPR, angle of the reflection", angle_to_reflection(states, normal), angle, 1e-8)


@torch.no_grad()
def test_the_edit_of_states() -> None:
    tensors, states = begun(), drawn(3, 20, HIDDEN)
    module = guidance(tensors)
    probe = tensors["probe"][0]
    turned = pi * hpr_training.angle_logits(states.flatten(0, 1)[None], tensors)[0].sigmoid().view(3, 20)
    says = states @ probe > 0
    known = angle_to_reflection(states, probe) > 2 * CLIPPED  # not a state that lies on the hyperplane but for that
    assert 10 < int(says.sum()) < 50 and 55 < int(known.sum()) < 60
    for alpha in (1.0, 0.5):
        ours = torch.where(says[..., None], states, pseudo_rotation(states, probe, alpha * turned))
        theirs = module.apply_guidance(states, alpha=alpha)
        compare(f"HPR, edited states, alpha {alpha}", ours[known], theirs[known], 1e-10)
        assert not torch.allclose(ours, theirs, atol=1e-4)
        kept = [float((each.norm(dim=-1) / states.norm(dim=-1) - 1).abs().max()) for each in (ours, theirs)]
        print(f"HPR, lengths are off by {kept[0]:.1e} (ours), {kept[1]:.1e} (theirs)")
        assert kept[0] < 1e-12
    edited = known & ~says
    beyond = module.apply_guidance(states, alpha=1.9)[edited]
    ours = pseudo_rotation(states, probe, (1.9 * turned).clamp(max=pi))[edited]
    past = (1.9 * turned > pi)[edited]
    compare("HPR, alpha 1.9, angles up to pi", ours[~past], beyond[~past], 1e-10)
    assert past.any() and not torch.allclose(ours[past], beyond[past], rtol=1e-3)  # they turn beyond pi, we stop there


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_logits_of_an_edited_model(family: str) -> None:
    model, layer = handle(family), 1
    loaded: Any = model.load()
    texts = training_texts()
    states = capture(model, list(texts.text), "block_output", "answer")
    steer = HPR.fit(model, texts, states, seed=0, layers=3, angle_net_layers=NET_LAYERS, epochs=3, held_out=0.0)
    steer = steer.with_layers([layer])
    place = steer.record.config["trained"].index(layer)
    module = guidance({name: tensor[place : place + 1] for name, tensor in steer.tensors.items()})
    ids = torch.arange(4 * 12).view(4, 12)
    block = loaded.transformer.h[layer] if family == "gpt2" else loaded.model.layers[layer]
    hook = block.register_forward_hook(lambda _, given, output: module.apply_guidance(output))
    theirs = loaded(ids).logits
    hook.remove()
    with steer.attached(loaded):
        ours = loaded(ids).logits
    assert not torch.allclose(ours, loaded(ids).logits, atol=1e-2)
    # Float32: their acos and the division by sin(gamma2) lose three digits, which is why ours has neither.
    compare(f"HPR, logits, {family}", ours, theirs, 1e-3)


def test_the_loss_of_training_and_its_gradient() -> None:
    found = definitions(
        "HPR", f"{FOLDER}/model/guidance/loss_fnc.py", "householder_loss", torch=torch, F=functional,
        HouseholderGuidanceModule=nn.Module, calculate_angle=utilities().calculate_angle,
    )  # fmt: skip
    tensors = {name: tensor.requires_grad_() for name, tensor in begun().items()}
    wished, unwished = drawn(30, HIDDEN), drawn(30, HIDDEN, seed=1)
    module = guidance({name: tensor.detach() for name, tensor in tensors.items()})
    theirs = found.householder_loss(module, wished, unwished)
    theirs.backward()
    ours = hpr_training.losses(torch.cat([wished, unwished])[None], tensors)[0]
    ours.backward()
    compare("HPR, gradient of the probe", tensors["probe"].grad[0], module.lr_model.weight.grad[0], 1e-10)
    # The angle of a wished state is 0 with us and CLIPPED with them, and half of the states are wished.
    angles = pi * hpr_training.angle_logits(wished[None], tensors)[0].sigmoid()
    departure = ((angles - CLIPPED).square() - angles.square()).mean() / 2
    compare("HPR, training loss but for the clipped angle", ours + departure, theirs, 1e-9)
