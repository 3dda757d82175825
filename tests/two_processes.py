"""What a process of a group computes, or one that is alone: `torchrun --nproc-per-node 2 tests/two_processes.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqcl import processes
from seqcl.encoders import Encoder
from seqcl.models import MODELS, Recommender
from seqcl.testing.models import begun, tiny
from seqcl.training.learner import Learner

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name, recipe in MODELS.items()
        if issubclass(recipe, Recommender) and recipe.__name__ == name
    },
    "prefixes": ("MoCoRec", {"data": {"windows": "prefix"}}),
    "two towers, sparse, drawn": ("TwoTower", {"towers": {"sparse": True}, "next_item": {"negatives": 6}}),
    "S3Rec's first stage": ("S3Rec", {}),
    "MoCo's first stage": ("MoCoRec", {"pretrain": {"epochs": 1, "keep": 1}}),
    "bce, a draw for each": ("SASRec", {"next_item": {"loss": "bce", "negatives": 3, "shared": False}}),
    "sampled softmax by popularity": (
        "SASRec",
        {"next_item": {"loss": "sampled_softmax", "negatives": 7, "sampling": "popularity"}},
    ),
    "PCL": ("ICLRec", {"objective": {"negatives": "clusters", "clusters": [3, 5]}}),
    "MoCo with mixes": ("MoCoRec", {"objective": {"queue": 32, "mixed": 3, "mixed_with_query": 2, "hardest": 8}}),
    "a learned temperature": ("SupConRec", {"objective": {"schedule": "learned"}}),
    "three views": ("CL4Rec", {"views": {"number": 3, "distinct": True}}),
    "SwAV with crops": ("SwAVRec", {"objective": {"crops": 2, "prototypes": 6}}),
    "SpCL in clusters": ("SpCLRec", {"objective": {"clusters": 6}}),
    "CASR from the first epoch on": ("CASR", {"objective": {"warmup": 0, "confidence": 0}}),
    "kept chances": (
        "SASRec",
        {"distil": {"teachers": "SLIST,EASE", "kept": 5, "groups": 3, "counted": 0.5}, "data": {"windows": "sliding"}},
    ),
    "fixed shapes": ("CL4Rec", {"train": {"shapes": "fixed"}}),
    "SwAV with a queue": ("SwAVRec", {"objective": {"queue": 20, "prototypes": 6}}),
}
"""Recipes with options, by name."""


def losses_and_weights(name: str, steps: int = 3) -> dict[str, Tensor]:
    """The terms of some steps in float64, the gradients of the last one, and every weight and buffer after it."""
    recipe, options = CASES[name]
    experiment = tiny(recipe, **options)
    torch.manual_seed(1)
    model, loader = begun(experiment)
    if "stage" in name:
        model = model.pretraining()
    model = model.double()
    cpu, fixed = torch.device("cpu"), experiment.train.fixed_on("cpu")
    learner = Learner(model, device=cpu, precision="32", weight_decay=0.01, ema=0.0, fixed=fixed)
    found: dict[str, Tensor] = {}
    torch.manual_seed(2)
    model.objective.before_epoch(learner.encoder, loader, epoch=0, epochs=2)
    model.train()
    for one in model.modules():
        if isinstance(one, Encoder):
            one.eval()  # no dropout: each process would draw its own
    for step, batch in zip(range(steps), loader.epoch(0), strict=False):
        _, terms = learner.backward(learner.forward(batch))
        found |= {f"step {step} {term}": value.clone() for term, value in terms.items()}
        if step == steps - 1:
            found |= {
                f"gradient {name}": one.grad.to_dense().clone()
                for name, one in model.named_parameters()
                if one.grad is not None
            }
        learner.optimizer.step(1e-2)
        model.objective.after_step(learner.encoder)
    return found | {f"state {name}": value.clone() for name, value in model.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes.start()
    for name in CASES:
        found = losses_and_weights(name)
        torch.save(found, Path(sys.argv[1]) / f"{name}-{processes.number()}.pt")
    processes.end()
