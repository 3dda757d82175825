"""Checks of what stands beside the network of a blend: memories from training alone, the rest from validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from seqcl.config import Experiment, Model
from seqcl.data import Sequences
from seqcl.encoders import Memory
from seqcl.encoders.reranker import Reranker
from seqcl.experiment import blended
from seqcl.experiment.audit.plain import Plain
from seqcl.experiment.audit.twin import twin_of
from seqcl.experiment.audit.verdict import Broken, Unused
from seqcl.models import Blend

Made = dict[str, Memory]


def blend_of(model: Model) -> Blend:
    """The model, which is a blend."""
    if not isinstance(model, Blend):
        raise Unused("nothing stands beside the network")
    return model


def count_on_twin(model: Model, experiment: Experiment, sequences: Sequences, plain: Plain) -> Made:
    """Count the memories on a log with other held-out interactions."""
    split = experiment.data.split_windows(twin_of(sequences, plain))
    other = blend_of(experiment.build(split.train, fresh=False))
    return {name: other.count(name) for name in blend_of(model).remembered()}


def check_memories(model: Model, made: Made, *, exact: bool) -> str:
    """Compare the memories of a run with those counted on a log with other held-out interactions."""
    memories = blend_of(model).memories
    if memories is None:
        raise Unused("nothing stands beside the network but moved vectors")
    for name, part in memories.parts.items():
        refuse_other(f"the memory {name}", part.state_dict(), made[name].state_dict(), exact)
    told = ", ".join(memories.parts)
    return f"{told}: the rows of {memories.num_items:,} items, counted where every held-out interaction is another one"


def check_choice(
    model: Model, made: Made, experiment: Experiment, sequences: Sequences, plain: Plain, *, exact: bool
) -> str:
    """Choose anew on the validation of a log with other test interactions: the choice of the run is the same."""
    blend, device = blend_of(model), next(iter(model.state_dict().values())).device
    known = list(plain.known)
    for one in plain.valid:
        known[one.user] = max(known[one.user], one.place + 1)
    other = experiment.data.split_windows(twin_of(sequences, replace(plain, known=known)))
    with network_alone(model):
        chosen = blended.settle(blend, made, experiment, other, device)
        found = {name: one for name, one in blend.settled().items() if name in ("table", "memories.mixture")}
        taught = reranker_of(blend)
    own = reranker_of(blend)
    kept = {name: blend.settled()[name] for name in found}
    refuse_other("what validation chose", kept, found, exact)
    refuse_other_reranker(own, taught, exact)
    return f"validation alone chooses {chosen}, whatever the test interactions are"


def reranker_of(blend: Blend) -> Reranker | None:
    """The reranker of a blend that is settled."""
    return None if blend.memories is None else blend.memories.reranker


def refuse_other_reranker(own: Reranker | None, taught: Reranker | None, exact: bool) -> None:
    """Refuse a reranker that is not the one made anew: to the bit, or else by its facts and by what it makes of features drawn at random."""
    if own is None and taught is None:
        return
    if own is None or taught is None:
        raise Broken("the reranker pays on one log and not on the other, where only held-out interactions are others")
    facts = ("counts", "mean", "deviation")
    mine, theirs = ({n: one for n, one in each.state_dict().items() if exact or n in facts} for each in (own, taught))
    refuse_other("the reranker", mine, theirs, exact)
    draws = torch.randn(1, 1000, len(own.mean), generator=torch.Generator().manual_seed(0)).to(own.mean)
    ours, others = own.judge(draws), taught.judge(draws)
    if float((ours - others).norm()) > 0.1 * float(ours.norm()):
        raise Broken("the reranker is another one where only held-out interactions are others: it judges otherwise")


def refuse_other(what: str, kept: dict[str, Tensor], found: dict[str, Tensor], exact: bool) -> None:
    """Refuse tensors that are not those made anew: to the bit, or else to some rounding, which lets items of equal weight change places."""
    for name, one in kept.items():
        if not exact and name == "items":
            continue
        other = found[name].to(one)
        if not (torch.equal(one, other) if exact else torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)):
            raise Broken(f"{what} is another one where only held-out interactions are others: {name} differs")


@contextmanager
def network_alone(model: Model) -> Iterator[None]:
    """Inside, a blend is its network, and may be settled anew; afterwards it is what it was."""
    if not isinstance(model, Blend):
        yield
        return
    beside = model.table, model.memories
    model.table, model.memories = None, None
    try:
        yield
    finally:
        model.table, model.memories = beside
