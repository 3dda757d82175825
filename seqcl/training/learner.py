"""A model and everything that changes with it from step to step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl import processes
from seqcl.encoders import dealt
from seqcl.shapes import fixed_shapes
from seqcl.training.average import Average
from seqcl.training.fabric import Precision, make_fabric
from seqcl.training.meter import Meter
from seqcl.training.optimizer import AdamW, has_sparse_table, trained_parameters
from seqcl.training.protocols import Trainable
from seqcl.types import SeqBatch


class Learner:
    """Holds a model with its optimizer, the average of its weights and the means of its losses.

    Attributes:
        module: the model.
        encoder, objective: the two halves of the model.
        average: running average of the weights, or None.

    Args:
        model: the model to train, on `device`.
        device: device of the model and of the batches.
        precision: "32", or "bf16".
        weight_decay: weight decay of AdamW.
        ema: decay of the average; 0 for none.
        fixed: in a step no shape depends on values.
    """

    def __init__(
        self,
        model: Trainable,
        *,
        device: torch.device,
        precision: Precision,
        weight_decay: float,
        ema: float,
        fixed: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"{type(model).__name__} is no torch.nn.Module")
        fabric = make_fabric(device, precision)
        self.module: nn.Module = model
        self.encoder, self.objective = dealt(model.encoder), model.objective
        self.device = device
        self.fixed = fixed
        self._forward = fabric.setup_module(model)
        self._backward = fabric.backward
        self._sparse = has_sparse_table(model)
        parameters = trained_parameters(model)
        self.optimizer = AdamW(parameters, weight_decay=weight_decay)
        self.average = Average(parameters, decay=ema) if ema else None
        self.meter = Meter()

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        """The losses of a batch by name, in the precision asked for."""
        with fixed_shapes(self.fixed):
            losses: dict[str, Tensor] = self._forward(batch)
        return losses

    def backward(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradient of the losses to the parameters, the mean over all processes; give their sum and them, likewise."""
        total = torch.stack(list(losses.values())).sum()
        self._backward(total)
        own = torch.stack([total.detach(), *(value.detach() for value in losses.values())])
        total, *means = processes.mean_gradients(self.optimizer.parameters, own, sparse=self._sparse)
        return total, dict(zip(losses, means, strict=True))
