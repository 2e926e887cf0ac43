"""LARS as MAE's linear probe uses it: the trust ratio at any weight decay, and never on 1-D parameters."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Momentum SGD whose gradient is rescaled per tensor to the length of the weights.

    For parameters w of more than one dimension the gradient g becomes ``g + weight_decay · w`` and then, if
    neither norm is 0, ``g · trust · ‖w‖ / ‖g‖``. Biases and other 1-D parameters take their gradient as it
    is. Then ``μ ← momentum · μ + g`` and ``w ← w − lr · μ``.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Weight of the past, in [0, 1).
        trust: Trust coefficient.
        weight_decay: Decay of the parameters of more than one dimension.

    Raises:
        ValueError: If an argument is negative or the momentum is not below 1.

    Source: You, Gitman and Ginsburg (2017), *Large Batch Training of Convolutional Networks*; details as in
    the linear probe of He et al. (2022), *Masked Autoencoders Are Scalable Vision Learners*.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in {
            "lr": lr,
            "momentum": momentum,
            "trust": trust,
            "weight_decay": weight_decay,
        }.items():
            if value < 0.0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if momentum >= 1.0:
            raise ValueError(f"momentum must be below 1, got {momentum}")
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if (gradient := parameter.grad) is not None:
                    self._update(parameter, gradient, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
            gradient = gradient * trust_ratio(parameter, gradient, group["trust"])
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        parameter.add_(state["momentum"], alpha=-group["lr"])


def trust_ratio(parameter: Tensor, gradient: Tensor, trust: float) -> Tensor:
    """``trust · ‖w‖ / ‖g‖``, or 1 where a norm is 0; a scalar tensor, so nothing waits for the device."""
    weight_norm, gradient_norm = parameter.norm(), gradient.norm()
    defined = (weight_norm > 0) & (gradient_norm > 0)
    return torch.where(defined, trust * weight_norm / gradient_norm, torch.ones_like(weight_norm))
