"""The α for which the DPP of α L has about k items: what makes rejection sampling of a k-DPP fast.

Any α gives the same k-DPP, so it need not be accurate; it is found without an eigendecomposition. Float64.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dppmask.dpp.checks import can_look_at, rows_left
from dppmask.dpp.uniforms import signs

STEPS = 4  # of Newton's method; images need one or two
LONGEST_STEP = 4.0  # of log α
NEAR = 0.4  # standard deviations between the expected size and k: costs at most 8 % of the acceptance rate
GRID = 32  # steps of log α to a unit: rounding errors of a device do not reach the sample
PROBES = 16  # vectors that estimate a trace
EXACT = 64  # up to so many items traces are exact
TINY = torch.finfo(torch.float64).tiny


class ScaledKernel(NamedTuple):
    """The DPP of α L of each image, ready for draws.

    Attributes:
        factor: ``[B, N, N]``, upper triangular V with Vᵀ V = α L + I, for some α.
        usable: bool ``[B]``. Elsewhere the numerical rank may be below the size wanted, rounding errors could
            be felt in a sample, or no α was found; the factor then means nothing.
    """

    factor: Tensor
    usable: Tensor


def unscaled(L: Tensor, dtype: torch.dtype) -> ScaledKernel:
    """α = 1: the DPP of float64 ``L [B, N, N]`` itself, which was given in ``dtype``."""
    factor = _factor(L, L.new_zeros(len(L)))
    sound = ~factor[:, 0, 0].isnan() & (_largest(L).log() < _log_limit(L.shape[1], dtype))
    return ScaledKernel(factor, sound & _semidefinite(L, dtype))


def scale_to_size(L: Tensor, size: Tensor, dtype: torch.dtype) -> ScaledKernel:
    """Find α by Newton's method; an image gets the same one in every batch, and the same α L for any c L.

    Args:
        L: Float64 ``[B, N, N]``.
        size: int64 ``[B]``: how many items are wanted. Rows with none or all of them are not usable.
        dtype: Precision in which L was given.
    """
    B, N, _ = L.shape
    probes, limit = _trace_probes(N, L.device), _log_limit(N, dtype)
    target = size.clamp(1, max(N - 1, 1)).double()
    L = L / _largest(L).clamp(min=TINY)[:, None, None]
    log_alpha = _first_guess(L, target).clamp(max=limit)
    factor, near = torch.empty_like(L), torch.zeros(B, dtype=torch.bool, device=L.device)
    mean, variance, error = L.new_zeros(3, B)
    for _ in range(STEPS):
        rows = rows_left(~near)
        if not len(near[rows]):
            break
        latest = _factor(L[rows], log_alpha[rows])
        if isinstance(rows, slice):
            factor = latest
        else:
            factor[rows] = latest
        mean[rows], variance[rows], error[rows] = _size_moments(latest, probes)
        near = (mean - target).abs() <= NEAR * variance.sqrt()
        moved = log_alpha + _newton_step(mean, variance, target, N)
        log_alpha = torch.where(near, log_alpha, ((moved * GRID).round() / GRID).clamp(max=limit))
    rank = mean.square() / (mean - variance)  # at least: (Σ p)² ≤ rank · Σ p² by Cauchy and Schwarz
    enough = rank > target - 0.5 + 5 * error  # a rank is a whole number
    sound = near & (log_alpha < limit) & enough & (size == target)
    return ScaledKernel(factor, sound & _semidefinite(L, dtype))


def _factor(L: Tensor, log_alpha: Tensor) -> Tensor:
    """V of :class:`ScaledKernel`, with a diagonal of NaN where α L + I is not positive definite."""
    shifted = L * log_alpha.exp()[:, None, None]
    shifted.diagonal(dim1=1, dim2=2).add_(1)
    lower, info = torch.linalg.cholesky_ex(shifted)
    lower.diagonal(dim1=1, dim2=2).masked_fill_((info != 0)[:, None], torch.nan)
    return lower.mT  # contiguous: LAPACK's matrices are stored by columns


def _newton_step(mean: Tensor, variance: Tensor, target: Tensor, N: int) -> Tensor:
    """What to add to log α for the ``target``: for logit(mean / N), whose slope hardly changes."""
    slope = variance / (mean * (1 - mean / N))
    step = ((target / N).logit() - (mean / N).logit()) / slope
    return step.nan_to_num(0).clamp(-LONGEST_STEP, LONGEST_STEP)


def _size_moments(factor: Tensor, probes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the size of a sample, and the standard error of that mean, each ``[B]``.

    With A = (α L + I)⁻¹ they are N - tr A and tr A - tr A²; a trace is Σ zᵀ (·) z over the probes z.
    """
    N, count = probes.shape
    half = torch.linalg.solve_triangular(factor.mT, probes.expand(len(factor), -1, -1), upper=False)
    full = torch.linalg.solve_triangular(factor, half, upper=True)
    parts = half.square().sum(1)  # [B, count]
    trace, trace_of_square = parts.sum(1), full.square().sum((1, 2))
    error = torch.zeros_like(trace) if count == N else math.sqrt(count) * parts.std(1)
    return N - trace, trace - trace_of_square, error


def _trace_probes(N: int, device: torch.device) -> Tensor:
    """Vectors in columns whose outer products add up to the identity, or to something near it.

    Source: Hutchinson (1989), *A Stochastic Estimator of the Trace of the Influence Matrix*.
    """
    if N <= EXACT:
        return torch.eye(N, dtype=torch.float64, device=device)
    return signs(N, PROBES, device=device) / math.sqrt(PROBES)


def _first_guess(L: Tensor, target: Tensor) -> Tensor:
    """Logarithm of α from three moments of the spectrum: ``[B]``.

    The largest eigenvalue λ₁ is estimated from the row sums. The others are taken for log-normal, with the
    mean and the variance that the trace and the Frobenius norm leave them, and the expected value of
    λ / (1 + λ) for the logistic-normal mean of MacKay (1992), *The Evidence Framework Applied to
    Classification Networks*, equation 11.
    """
    N = L.shape[1]
    rest = max(N - 1, 1)
    row_sums = L.sum(2)
    largest = row_sums.square().sum(1) / row_sums.sum(1).clamp(min=TINY)
    trace, square = L.diagonal(dim1=1, dim2=2).sum(1), L.square().sum((1, 2))
    mean = ((trace - largest) / rest).clamp(min=TINY)
    mean_square = ((square - largest.square()) / rest).clamp(min=TINY)
    log_variance = (mean_square.log() - 2 * mean.log()).clamp(min=0)
    share = ((target - 1).clamp(min=0.5) / rest).clamp(max=1 - 0.5 / N)  # λ₁ stands for one item
    return share.logit() * (1 + math.pi / 8 * log_variance).sqrt() - mean.log() + log_variance / 2


def _largest(L: Tensor) -> Tensor:
    """The largest diagonal entry of each kernel: ``[B]``."""
    return L.diagonal(dim1=1, dim2=2).amax(1)


def _log_limit(N: int, dtype: torch.dtype) -> float:
    """Log α up to which directions that hold nothing but rounding noise add next to nothing to a sample.

    For kernels whose largest diagonal entry is 1. Noise is far below N ε
    (:func:`~dppmask.dpp.spectrum.rounding_noise`); α keeps that below 1/4, and so the condition number of
    α L + I below 2³⁰ in float64.
    """
    return -math.log(4 * N * max(torch.finfo(dtype).eps, 2.0**-32))


def _semidefinite(L: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether L is positive semi-definite to rounding: bool ``[B]``, looked at on the CPU only."""
    if not can_look_at(L):
        return torch.ones(len(L), dtype=torch.bool, device=L.device)
    shifted = L.to(dtype, copy=True)
    diagonal = shifted.diagonal(dim1=1, dim2=2)  # [B, N]
    diagonal.add_(torch.finfo(dtype).eps ** 0.5 * diagonal.amax(1, keepdim=True))
    return torch.linalg.cholesky_ex(shifted).info == 0
