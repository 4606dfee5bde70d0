"""SLIM's risk-aware classifiers: a linear one a head that says "unwished" or not, and the vote of a layer's heads.

A head's p = sigmoid(theta.x + theta0) is trained for few false alarms and few misses, weighed by bl:

    FPR~ + bl FNR~,   FPR~ = mean of p over the wished rows,   FNR~ = mean of 1 - p over the unwished      (fpr_fnr)

The heads with p > 0.5 vote; a layer says "unwished" from tau votes on.
Source: the paper's stage of risk-aware classifiers (arXiv 2501.15758) and its code, validation/ot_edit_layer.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Loss = Literal["fpr_fnr", "l2", "cross_entropy"]


@dataclass(frozen=True)
class Classifiers:
    """Those of one layer. weight: theta, (heads, size); bias: theta0, (heads,), float32."""

    weight: Tensor
    bias: Tensor

    def logits(self, states: Tensor) -> Tensor:
        """theta.x + theta0, (..., heads); states: (..., heads, size). Above 0 a head votes."""
        return (states * self.weight).sum(-1) + self.bias

    def votes(self, states: Tensor) -> Tensor:
        """How many heads vote, (...,) int64; states: (..., heads, size)."""
        return (self.logits(states) > 0).sum(-1)


def train(
    states: Tensor,
    unwished: Tensor,
    judging_states: Tensor,
    judging_unwished: Tensor,
    *,
    loss: Loss,
    bl: float,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    official_code: bool,
) -> Classifiers:
    """The classifiers of one layer's heads, by Adam on all rows at once, each head's at its best judging loss.

    states: (rows, heads, size); unwished: (rows,) bool, of both kinds; judging_states, judging_unwished: like them, of
    the rows that judge. official_code: the state after the last epoch, which its copy of the best one really holds.
    """
    x, judging_x = (each.float().transpose(0, 1).contiguous() for each in (states, judging_states))
    heads, _, size = x.shape
    bound = (6 / (size + 1)) ** 0.5  # Xavier's, of a layer with one output
    start = (2 * torch.rand(heads, size, 1, generator=generator) - 1) * bound
    weight = start.to(x.device).requires_grad_()
    bias = torch.zeros(heads, 1, 1, device=x.device, requires_grad=True)
    adam = torch.optim.Adam([weight, bias], lr=learning_rate, fused=True)
    of_rows, of_judging = (_loss(loss, bl, each.float().to(x.device)) for each in (unwished, judging_unwished))
    best, best_loss = (weight.detach().clone(), bias.detach().clone()), torch.full((heads,), torch.inf).to(x)
    for _ in range(epochs):
        adam.zero_grad()
        of_rows(torch.baddbmm(bias, x, weight)[..., 0]).sum().backward()  # the heads share no parameter
        adam.step()
        if official_code:
            continue
        with torch.no_grad():
            found = of_judging(torch.baddbmm(bias, judging_x, weight)[..., 0])
            better = (found < best_loss)[:, None, None]
            best_loss = torch.minimum(found, best_loss)
            best = torch.where(better, weight, best[0]), torch.where(better, bias, best[1])
    weight, bias = (weight.detach(), bias.detach()) if official_code else best
    return Classifiers(weight[..., 0], bias[:, 0, 0])


def rates(says: Tensor, unwished: Tensor) -> tuple[Tensor, Tensor]:
    """FPR and FNR, (...,) float64; says, unwished: (rows, ...) and (rows,) bool, the latter of both kinds."""
    return says[~unwished].double().mean(0), (~says[unwished]).double().mean(0)


def risk(classifiers: Classifiers, states: Tensor, unwished: Tensor, bl: float) -> float:
    """The mean over heads of FPR + bl FNR: the lower, the better the layer tells the classes apart."""
    fpr, fnr = rates(classifiers.logits(states.float()) > 0, unwished)
    return float((fpr + bl * fnr).mean())


def threshold(votes: Tensor, unwished: Tensor, heads: int, bl: float, *, official_code: bool) -> int:
    """tau in 0 .. heads - 1 with the least FPR + bl FNR, of equals the smallest; votes: (rows,) int64.

    official_code: with the least FNR, and of those the least FPR + bl FNR. tau = 0 misses nothing and always has the
    least FNR; so it is picked unless a larger tau misses nothing either.
    """
    fpr, fnr = rates(votes[:, None] >= torch.arange(heads, device=votes.device), unwished)
    total = (fpr + bl * fnr).tolist()
    first = fnr.tolist() if official_code else total
    return min(range(heads), key=lambda tau: (first[tau], total[tau], tau))


def _loss(name: Loss, bl: float, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Of logits (heads, rows) the loss of each head, (heads,); y: (rows,), 1.0 where unwished, else 0.0."""
    misses, alarms = bl * y / y.sum(), (1 - y) / (1 - y).sum()
    return {
        "fpr_fnr": lambda logits: logits.sigmoid() @ alarms + (-logits).sigmoid() @ misses,
        "l2": lambda logits: (logits.sigmoid() - y).square().mean(-1),
        "cross_entropy": lambda logits: functional.binary_cross_entropy_with_logits(
            logits, y.expand_as(logits), reduction="none"
        ).mean(-1),
    }[name]
