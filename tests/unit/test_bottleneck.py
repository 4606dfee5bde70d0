"""The bottleneck adapter: what it computes, what it leaves alone, how many weights it has."""

import pytest
import torch

from steerlab import sites
from steerlab.methods import bottleneck
from steerlab.tiny_models import FAMILIES
from tests.laws.subjects import LAYERS, tiny_model

IDS = torch.tensor([[10, 20, 30, 40, 50]])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_adapter_leaves_the_logits_bit_for_bit(family: str) -> None:
    model = tiny_model(family)
    made = bottleneck.make(model, range(LAYERS), reduction=4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = model(IDS).logits
        with sites.modules(model, made):
            assert torch.equal(model(IDS).logits, base)


def test_an_adapter_adds_a_relu_between_two_affine_maps() -> None:
    model = tiny_model("gpt2")
    path = sites.adapter_paths(model, 1)[1]
    adapted = bottleneck.make(model, [1], reduction=4)[path]
    for number, weight in enumerate(bottleneck.trained({path: adapted})):
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    D, d, U, u = (weight.detach() for _, weight in bottleneck.parameters(adapted))
    x = torch.randn(2, 3, model.config.hidden_size, generator=torch.Generator().manual_seed(9))
    own = model.get_submodule(path)(x)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), own + torch.relu(own @ D.T + d) @ U.T + u)


@pytest.mark.parametrize("layers", [[1], range(LAYERS)], ids=str)
def test_the_number_of_weights_is_that_of_two_small_maps_with_biases_twice_a_block(layers: range) -> None:
    made = bottleneck.make(tiny_model("llama"), layers, reduction=4)
    hidden, width = 16, 4
    assert sum(w.numel() for w in bottleneck.trained(made)) == 2 * len(layers) * (2 * hidden * width + width + hidden)


def test_the_weights_are_the_same_after_they_were_put_away() -> None:
    model = tiny_model("llama")
    made = bottleneck.make(model, [1], reduction=4, generator=torch.Generator().manual_seed(0))
    again = bottleneck.make(model, [1], reduction=4)
    bottleneck.fill(again, bottleneck.tensors(made))
    assert all(map(torch.equal, bottleneck.trained(made), bottleneck.trained(again)))


@pytest.mark.parametrize("reduction", [0, 17])
def test_a_reduction_without_width_is_refused(reduction: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 16"):
        bottleneck.make(tiny_model("llama"), [1], reduction=reduction)
