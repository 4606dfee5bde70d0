"""SLIM's transport problem: the nearest Gaussian that a linear classifier puts on its wished side, and the map to it.

Of states with mean m and covariance S, R = S^(1/2), and wished ones with covariance C, K = C^(1/2), find mu and T:

    min |mu - m|^2 + |T - R|_F^2   such that   theta0 + theta.mu + kappa |T theta| <= 0,   T >= K,   T psd    (P)

A Gaussian of mean mu and covariance T^2 is then on the wished side with probability Phi(kappa) or more. The map of the
states to it is x -> A x + b, linear optimal transport between Gaussians.

mu is known once T is: with a = theta0 + theta.m, the least |mu - m|^2 is phi(|T theta|), phi(t) = [a + kappa t]_+^2 /
|theta|^2. The Fenchel dual of (P) is then a concave problem without constraints in y, of the head's size alone:

    max  min_{T >= K} (|T - R|_F^2 + y.T theta) - phi*(|y|)                                                  (D)

Its inner minimum is at T = K + [R - K - (y theta' + theta y') / 4]_+, [.]_+ the part with eigenvalues above 0, and its
gradient in y is T theta. That T is feasible in (P), so the objective there less that of (D) bounds how far from the
optimum it is: a certificate that needs no other solver. (D) is solved by semismooth Newton steps, whose Hessian is as
cheap as the gradient once the eigenvectors are known, for all problems at once, in float64.

Source: the paper's stage of distributional intervention (arXiv 2501.15758), whose code hands (P) to a conic solver.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CERTIFIED = 1e-5  # the gap that a solution must not exceed, as a share of 1 + objective
RIDGE = 1e-5  # added to the diagonal of a covariance that is not positive definite, as in the code
_SOLVED, _STEPS, _HALVINGS = 1e-11, 100, 30
_ARMIJO, _ROUNDING = 1e-4, 1e-13
_LONGEST = 3.0  # multiples of y that a step may have where T theta does not depend on y


@dataclass(frozen=True)
class Target:
    """Solutions of (P), one a problem.

    mean: mu, (problems, size); root: T, (problems, size, size); objective and gap, (problems,): the value of (P) and
    how much less that of (D) is. float64.
    """

    mean: Tensor
    root: Tensor
    objective: Tensor
    gap: Tensor


def nearest_wished(
    mean: Tensor, root: Tensor, weight: Tensor, bias: Tensor, kappa: float, floor: Tensor | None = None
) -> Target:
    """The solutions of (P).

    mean: m, (problems, size); root: R, (problems, size, size), symmetric psd, as is floor: K, None for 0; weight:
    theta, (problems, size), bias: theta0, (problems,), of the classifier, positive where unwished; kappa > 0.
    Raises ValueError for other kappas, a weight of zero, values that are not finite, and where a gap stays above
    CERTIFIED (1 + objective).
    """
    if not kappa > 0:
        raise ValueError(f"SLIM's kappa is {kappa}; give a number above 0, or a risk level alpha below 0.5")
    floor = torch.zeros_like(root) if floor is None else floor
    problem = _Problem(mean.double(), root.double(), floor.double(), weight.double(), bias.double(), kappa)
    problem.check()
    y = problem.start()
    state = problem.at(y, torch.arange(len(y), device=y.device))
    todo = torch.nonzero(state.gap > _SOLVED * (1 + state.primal))[:, 0]
    for _ in range(_STEPS):
        if not len(todo):
            break
        y_new, found, moved = problem.step(y[todo], state.rows(todo), todo)
        y[todo] = y_new
        state.put(todo, found)
        todo = todo[moved & (found.gap > _SOLVED * (1 + found.primal))]
    off = state.gap / (1 + state.primal)
    if not off.max() <= CERTIFIED:
        raise ValueError(
            f"SLIM's transport problem {int(off.argmax())} was left with a gap of {off.max():.1e} of its objective, "
            f"above {CERTIFIED:g}; standardise the states or choose another kappa"
        )
    return Target(problem.nearest_mean(state.s), state.root, state.primal, state.gap)


def gaussian_map(mean: Tensor, covariance: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """x -> A x + b, optimal transport from the Gaussian (m, S) to the target's: A, (problems, size, size) symmetric
    psd; b, (problems, size). float64. S must be positive definite.

    A = S^(-1/2) (S^(1/2) T^2 S^(1/2))^(1/2) S^(-1/2), b = mu - A m.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    half, inverse = (_of_spectrum(values.sqrt() ** power, vectors) for power in (1, -1))
    inner = target.root @ half  # its product with itself is psd whatever the rounding
    a = inverse @ psd_root(inner.mT @ inner) @ inverse
    a = (a + a.mT) / 2
    return a, target.mean - (a @ mean.double()[..., None])[..., 0]


def positive_definite(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances (..., size, size) with RIDGE on the diagonal of those that are not positive definite, and which."""
    values = torch.linalg.eigvalsh(covariance)
    ridged = values[..., 0] <= covariance.shape[-1] * torch.finfo(values.dtype).eps * values[..., -1]
    return covariance + (RIDGE * ridged)[..., None, None] * torch.eye(covariance.shape[-1]).to(covariance), ridged


def psd_root(matrix: Tensor) -> Tensor:
    """The psd square root of symmetric psd matrices (..., size, size)."""
    values, vectors = torch.linalg.eigh(matrix)
    return _of_spectrum(values.clamp(min=0).sqrt(), vectors)


@dataclass
class _State:
    """(D) at some y, a row a problem: both objectives, T, T theta, and the eigenvectors that T was made with."""

    dual: Tensor
    primal: Tensor
    root: Tensor
    s: Tensor
    values: Tensor
    vectors: Tensor

    @property
    def gap(self) -> Tensor:
        return self.primal - self.dual

    def rows(self, rows: Tensor) -> "_State":
        return _State(*(each[rows] for each in vars(self).values()))

    def put(self, rows: Tensor, other: "_State") -> None:
        for name, each in vars(self).items():
            each[rows] = getattr(other, name)


@dataclass
class _Problem:
    m: Tensor
    r: Tensor
    k: Tensor
    theta: Tensor
    theta0: Tensor
    kappa: float

    def __post_init__(self) -> None:
        self.a = self.theta0 + (self.theta * self.m).sum(-1)
        self.size2 = self.theta.square().sum(-1)
        # phi* is constant up to here: a dual multiplier of the constraint that the mean alone asks for
        self.flat = (2 * self.kappa * self.a / self.size2).clamp(min=0)

    def check(self) -> None:
        for name, each in {"mean": self.m, "covariance": self.r, "wished covariance": self.k}.items():
            if not torch.isfinite(each).all():
                raise ValueError(f"SLIM: a {name} is not finite; look for such activations")
        if not (self.size2 > 0).all():
            raise ValueError("SLIM: a classifier's weight is zero, so no state is on its wished side; leave it out")

    def phi(self, t: Tensor) -> Tensor:
        return (self.a + self.kappa * t).clamp(min=0).square() / self.size2

    def nearest_mean(self, s: Tensor) -> Tensor:
        """mu: m moved against theta until the constraint holds, T theta being s."""
        excess = (self.a + self.kappa * s.norm(dim=-1)).clamp(min=0)
        return self.m - (excess / self.size2)[:, None] * self.theta

    def start(self) -> Tensor:
        """0 where the states are on the wished side already; else a y from which (D) is smooth: 0 is a kink of it."""
        at_zero = self.at(torch.zeros_like(self.m), torch.arange(len(self.m), device=self.m.device))
        length = at_zero.s.norm(dim=-1).clamp(min=torch.finfo(self.m.dtype).tiny)
        rise = length + (self.a / self.kappa).clamp(max=0)  # of (D) along s
        curvature = self.size2 / 2 + self.size2 / (2 * self.kappa**2)  # at most
        radius = (self.flat + rise / curvature) * (self.a + self.kappa * length > 0)
        return (radius / length)[:, None] * at_zero.s

    def conjugate(self, radius: Tensor, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phi* and its first and second derivative at `radius` >= 0."""
        a, size2, bent = self.a[i], self.size2[i], radius > self.flat[i]
        slope = radius * size2 / (2 * self.kappa**2) - a / self.kappa
        value = radius.square() * size2 / (4 * self.kappa**2) - radius * a / self.kappa
        value = torch.where(bent, value, -a.clamp(min=0).square() / size2)
        return value, torch.where(bent, slope, 0.0), torch.where(bent, size2 / (2 * self.kappa**2), 0.0)

    def at(self, y: Tensor, i: Tensor) -> _State:
        """(D) of the problems i, (rows,), at y, (rows, size)."""
        theta = self.theta[i]
        outer = y[:, :, None] * theta[:, None]
        values, vectors = torch.linalg.eigh(self.r[i] - self.k[i] - (outer + outer.mT) / 4)
        root = self.k[i] + _of_spectrum(values.clamp(min=0), vectors)
        s = (root @ theta[..., None])[..., 0]
        moved = (root - self.r[i]).square().sum((-1, -2))
        primal = moved + (self.a[i] + self.kappa * s.norm(dim=-1)).clamp(min=0).square() / self.size2[i]
        dual = moved + (y * s).sum(-1) - self.conjugate(y.norm(dim=-1), i)[0]
        return _State(dual, primal, root, s, values, vectors)

    def step(self, y: Tensor, state: _State, i: Tensor) -> tuple[Tensor, _State, Tensor]:
        """y after a Newton step, halved where it would not lead up, (D) there, and where it did lead up."""
        radius = y.norm(dim=-1).clamp(min=torch.finfo(y.dtype).tiny)
        u = y / radius[:, None]
        _, slope, bend = self.conjugate(radius, i)
        gradient = state.s - slope[:, None] * u
        identity = torch.eye(y.shape[1]).to(y)
        across = slope / radius
        damping = gradient.norm(dim=-1) / (_LONGEST * radius) + 1e-12 * self.size2[i]
        curvature = self.curvature(state, i) + (across + damping)[:, None, None] * identity
        curvature = curvature + (bend - across)[:, None, None] * u[:, :, None] * u[:, None]
        direction = torch.linalg.solve(curvature, gradient)
        gain = _ARMIJO * (direction * gradient).sum(-1)
        length = torch.ones_like(gain)
        found = self.at(y + direction, i)
        down = torch.arange(0)
        for _ in range(_HALVINGS):
            rounding = _ROUNDING * (1 + state.primal)
            down = torch.nonzero(found.dual < state.dual + length * gain - rounding)[:, 0]
            if not len(down):
                break
            length[down] /= 2
            found.put(down, self.at(y[down] + length[down, None] * direction[down], i[down]))
        moved = torch.ones_like(length, dtype=torch.bool)
        moved[down] = False
        return y + length[:, None] * direction, found, moved

    def curvature(self, state: _State, i: Tensor) -> Tensor:
        """Minus the Hessian of (D)'s inner minimum, (rows, size, size).

        The derivative of [.]_+ at Q diag(v) Q' in a direction H is Q (W o Q'HQ) Q', W the divided differences of
        max(v, 0); with H = -(w theta' + theta w') / 4 and Q'theta = z its product with theta is
        -Q (diag(W z^2) + diag(z) W diag(z)) Q' w / 4.
        """
        v, q = state.values, state.vectors
        gaps = v[:, :, None] - v[:, None]
        same = gaps.abs() <= 1e-14 * v.abs().amax(-1)[:, None, None]
        w = (v.clamp(min=0)[:, :, None] - v.clamp(min=0)[:, None]) / torch.where(same, 1.0, gaps)
        w = torch.where(same, (v > 0).to(v)[:, :, None], w)
        z = (q.mT @ self.theta[i][..., None])[..., 0]
        inner = torch.diag_embed((w @ z.square()[..., None])[..., 0]) + z[:, :, None] * w * z[:, None]
        return q @ inner @ q.mT / 4


def _of_spectrum(values: Tensor, vectors: Tensor) -> Tensor:
    """Q diag(values) Q'."""
    return (vectors * values[..., None, :]) @ vectors.mT
