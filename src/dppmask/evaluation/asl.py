"""The asymmetric loss of images with several labels, and the function that its gradient descends."""

import torch
import torch.nn.functional as F
from torch import Tensor

GAMMA_NEG, MARGIN = 4, 0.05
_SMALLEST = 1e-8  # probability below which a logarithm no longer falls


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = GAMMA_NEG,
    gamma_pos: float = 0.0,
    margin: float = MARGIN,
) -> Tensor:
    """Binary cross-entropy that forgives easy negatives, summed over images and labels.

    With p the probability of a label and q = min(1 - p + margin, 1), a positive costs ``-(1 - p)^gamma_pos ·
    log p`` and a negative ``-(1 - q)^gamma_neg · log q``. The powers are weights: no gradient flows through
    them. Computed in float32 or better, also under autocast.

    timm has the same loss, but what it averages over, and whether it can be used without gradient, depends on
    timm's version.

    Args:
        logits: ``[B, L]``.
        targets: 0 or 1, or bool, ``[B, L]``.
        gamma_neg: How much less easy negatives weigh.
        gamma_pos: How much less easy positives weigh.
        margin: Negatives with p below it cost nothing.

    Source: Ridnik et al. (2021), *Asymmetric Loss For Multi-Label Classification*, equations 4 to 7; sum,
    weights without gradient and ``gamma_pos = 0`` as in its code.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    right = torch.where(targets.bool(), logits.sigmoid(), ((-logits).sigmoid() + margin).clamp(max=1.0))
    gamma = torch.where(targets.bool(), gamma_pos, gamma_neg)
    weight = (1.0 - right.detach()) ** gamma
    return -(weight * right.clamp(min=_SMALLEST).log()).sum()


def asymmetric_potential(logits: Tensor, targets: Tensor) -> Tensor:
    """The function that training with :func:`asymmetric_loss` descends, sum over labels, mean over images.

    The asymmetric loss does not fall along its own gradient, which ignores the weights: no line search can
    work on it. The gradient is that of another function of the logits, with the default settings

    - ``-log p`` for a positive, - ``-log(1 - s) - s - s²/2 - s³/3 - s⁴/4`` for a negative, s = max(p -
    margin, 0),

    because s⁴ / (1 - s), the slope of the latter, is the weight times the slope of ``-log(1 - s)``.

    Args:
        logits: ``[B, L]``; computed in float64, as the terms for a negative nearly cancel.
        targets: 0 or 1, or bool, ``[B, L]``.
    """
    logits = logits.double()
    excess = (logits.sigmoid() - MARGIN).clamp(min=0.0)
    powers = torch.stack([excess**k / k for k in range(1, GAMMA_NEG + 1)])
    costs = torch.where(targets.bool(), -F.logsigmoid(logits), -torch.log1p(-excess) - powers.sum(0))
    return costs.sum(dim=1).mean()
