"""AdamW over named parameters, and the limit of a gradient's norm.

The arithmetic is torch's fused AdamW. Its Optimizer class is left out for two reasons: making one imports
torch._dynamo (1.4 s, half of the time to the first step), and state by parameter name goes into safetensors as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from seqcl.errors import UserError

BETAS = (0.9, 0.999)
EPSILON = 1e-8
SPARSE_CLIP = "train.clip needs the whole gradient, and that of a table is sparse: towers.sparse false, or no clip"


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that take gradient, by name; a tied one once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def has_sparse_table(model: nn.Module) -> bool:
    """True if a table of the model has a sparse gradient."""
    return any(getattr(module, "sparse", False) is True for module in model.modules())


def check_clip(model: nn.Module, limit: float) -> None:
    """Refuse a limit of the gradient's norm for a model whose table has a sparse gradient, before anything is begun.

    Raises:
        UserError: says what to change.
    """
    if limit and has_sparse_table(model):
        raise UserError(SPARSE_CLIP)


def clip_gradient(parameters: list[nn.Parameter], limit: float) -> None:
    """Scale the gradient, in place, so that its norm over all parameters is at most `limit`.

    Raises:
        UserError: the gradient of a table is sparse.
    """
    if any(parameter.grad is not None and parameter.grad.is_sparse for parameter in parameters):
        raise UserError(SPARSE_CLIP)
    nn.utils.clip_grad_norm_(parameters, limit, foreach=True)


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2).

    Parameters of at most one dimension have no decay, such as gains of norms and most biases; all others have.
    A sparse gradient moves its own rows of a table alone; the moments of the other rows stay as they are.

    Args:
        parameters: the parameters to update, by name.
        weight_decay: portion of a weight taken off per update, times the learning rate.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, weight_decay: float = 0.0) -> None:
        self.names = list(parameters)
        self.parameters = list(parameters.values())
        self.weight_decay = weight_decay
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.square = [torch.zeros_like(parameter) for parameter in self.parameters]
        device = self.parameters[0].device
        self.steps = torch.zeros(len(self.parameters), device=device)  # (P,) a parameter without gradient stands still
        self._step = list(self.steps.unbind())

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient, then drop the gradients."""
        have = [index for index, parameter in enumerate(self.parameters) if parameter.grad is not None]
        for index in [index for index in have if self.parameters[index].grad.is_sparse]:  # type: ignore[union-attr]
            have.remove(index)
            self._update_rows(index, lr)
        decayed = [index for index in have if self.weight_decay and self.parameters[index].ndim >= 2]
        plain = [index for index in have if not (self.weight_decay and self.parameters[index].ndim >= 2)]
        for group, decay in ((decayed, self.weight_decay), (plain, 0.0)):
            if group:
                self._update(group, lr, decay)
        for parameter in self.parameters:
            parameter.grad = None

    def _update_rows(self, index: int, lr: float) -> None:
        parameter = self.parameters[index]
        grad = parameter.grad.coalesce()  # type: ignore[union-attr]
        rows, values = grad.indices()[0], grad.values()  # (R,), (R, D)
        self.steps[index] += 1
        mean = self.mean[index][rows].lerp_(values, 1 - BETAS[0])
        square = self.square[index][rows].lerp_(values.square(), 1 - BETAS[1])
        self.mean[index][rows], self.square[index][rows] = mean, square
        correction = [1 - beta ** float(self.steps[index]) for beta in BETAS]
        step = mean / correction[0] / ((square / correction[1]).sqrt_() + EPSILON)
        parameter[rows] = parameter[rows] * (1 - lr * self.weight_decay) - lr * step

    def _update(self, group: list[int], lr: float, decay: float) -> None:
        parameters = [self.parameters[index] for index in group]
        adamw(
            list[Tensor](parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.mean[index] for index in group],
            [self.square[index] for index in group],
            [],
            [self._step[index] for index in group],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=decay,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        mean = {f"mean.{name}": tensor for name, tensor in zip(self.names, self.mean, strict=True)}
        square = {f"square.{name}": tensor for name, tensor in zip(self.names, self.square, strict=True)}
        return {"steps": self.steps, **mean, **square}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a `state()`, in place; names and shapes must be the same."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
