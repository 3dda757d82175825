"""Detection of order: it is learned where rows have an order, and stays at chance where they have none."""

from __future__ import annotations

import torch

from seqcl.augment import Identity, Reorder
from seqcl.data import Preparation, leave_one_out, markov, shuffled
from seqcl.encoders import SASRec
from seqcl.experiment import training_batches
from seqcl.objectives import Detect
from seqcl.training import Trainer

CHAIN = markov(users=400, items=30, length=12, branching=2, seed=1).interactions


def detection(log, view, *, epochs: int) -> Detect:
    """Learn on six batches of the rows of a log, then look at the other two, whose figures stay in `observed`."""
    torch.manual_seed(0)
    split = leave_one_out(Preparation().sequences(log), windows="last", max_len=12)
    batches = list(training_batches(split, Trainer(batch_size=50), seed=0, device=torch.device("cpu")).epoch(0))
    encoder = SASRec(num_items=split.train.num_items, max_len=12, dim=32, dropout=0.0)
    objective = Detect(views=view, dim=32, weight=1.0)
    objective.prepare(encoder, split.train)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.005)
    for _ in range(epochs):
        for batch in batches[:6]:
            optimizer.zero_grad()
            objective(encoder, batch)["detect"].backward()
            optimizer.step()
    told = []
    with torch.no_grad():
        for batch in batches[6:]:
            term = objective(encoder, batch)["detect"]
            told.append(objective.observed["told"])
    objective.observed = {"told": torch.stack(told).mean(), "term": term}
    return objective


def test_shuffled_rows_of_a_chain_are_told_from_others_and_those_without_order_are_not():
    shares = [
        float(detection(log, Reorder(rate=1.0), epochs=20).observed["told"]) for log in (CHAIN, shuffled(CHAIN, seed=0))
    ]
    assert shares[0] > 0.65 and 0.4 < shares[1] < 0.58, shares


def test_a_view_that_equals_its_row_says_nothing():
    objective = detection(CHAIN, Identity(), epochs=0)
    assert objective.observed == {"told": 0.5, "term": 0} and bool(objective.missing["detect"])
