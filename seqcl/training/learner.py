"""A model and everything that changes with it from step to step."""

from __future__ import annotations

import torch
from torch import nn

from seqcl.encoders import dealt
from seqcl.training.average import Average
from seqcl.training.fabric import Precision, make_fabric
from seqcl.training.meter import Meter
from seqcl.training.optimizer import AdamW, trained_parameters
from seqcl.training.protocols import Trainable


class Learner:
    """Holds a model with its optimizer, the average of its weights and the means of its losses.

    Attributes:
        module: the model.
        encoder, objective: the two halves of the model.
        forward: the model called in the precision asked for.
        backward: adds the gradient of a scalar to the parameters.
        average: running average of the weights, or None.

    Args:
        model: the model to train, on `device`.
        device: device of the model and of the batches.
        precision: "32", or "bf16".
        weight_decay: weight decay of AdamW.
        ema: decay of the average; 0 for none.
    """

    def __init__(
        self, model: Trainable, *, device: torch.device, precision: Precision, weight_decay: float, ema: float
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"{type(model).__name__} is no torch.nn.Module")
        fabric = make_fabric(device, precision)
        self.module: nn.Module = model
        self.encoder, self.objective = dealt(model.encoder), model.objective
        self.device = device
        self.forward = fabric.setup_module(model)
        self.backward = fabric.backward
        parameters = trained_parameters(model)
        self.optimizer = AdamW(parameters, weight_decay=weight_decay)
        self.average = Average(parameters, decay=ema) if ema else None
        self.meter = Meter()
