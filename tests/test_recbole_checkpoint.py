"""A checkpoint of RecBole's is opened by a process that has made nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqcl.errors import UserError
from seqcl.experiment.public_weights import evaluate_public
from tests.recbole_world import OWN_WARNINGS, alone, prepared, recbole_or_skip, shop

recbole_or_skip()
pytestmark = OWN_WARNINGS
__all__ = ["alone"]  # a fixture

OPEN = """
import sys
import seqcl.integrations.recbole
from recbole.quick_start import load_data_and_model
from recbole.trainer import Trainer

config, model, _, _, _, test = load_data_and_model(sys.argv.pop())
print("found", Trainer(config, model).evaluate(test, load_best_model=False)["ndcg@10"])
"""


def test_a_new_process_evaluates_a_checkpoint_as_the_one_that_made_it(alone):
    from recbole.trainer import Trainer

    from seqcl.integrations.recbole import MoCoRec

    config, train, valid, test = prepared(MoCoRec, shop(alone), metric_decimal_place=6)
    trainer = Trainer(config, MoCoRec(config, train.dataset))
    trainer.fit(train, valid, verbose=False)
    mine = trainer.evaluate(test)["ndcg@10"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", OPEN, str(trainer.saved_model_file)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("found")]
    assert float(line.split()[1]) == mine > 0


def theirs_and_ours(folder, duplicates=None):
    """Metrics of RecBole's SASRec on `shop`, there and here."""
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer

    import seqcl.integrations.recbole  # noqa: F401 - so that RecBole loads its checkpoint again

    sizes = {"hidden_size": 8, "inner_size": 16, "epochs": 3, "train_neg_sample_args": None, "topk": [5, 10]}
    config, train, valid, test = prepared(SASRec, folder, **sizes, rm_dup_inter=duplicates)
    trainer = Trainer(config, SASRec(config, train.dataset))
    trainer.fit(train, valid, verbose=False)
    data = {"duplicates": duplicates} if duplicates else {}
    path = Path(trainer.saved_model_file)
    found = evaluate_public(path, "recbole", str(folder / "shop"), seen="keep", **data)["metrics"]
    return trainer.evaluate(test), found


def test_weights_of_recboles_own_model_rank_here_as_there(alone):
    theirs, found = theirs_and_ours(shop(alone))
    for metric in ("ndcg@5", "ndcg@10", "recall@5", "mrr@10"):
        assert found[metric] == pytest.approx(theirs[metric], abs=1e-6) and theirs[metric] > 0


@pytest.mark.parametrize("duplicates", ["first", "last"])
def test_items_are_told_apart_where_recbole_sorted_by_time_before_it_removed_repeats(alone, duplicates):
    path = shop(alone) / "shop" / "shop.inter"
    head, *lines = path.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    for place, row in enumerate(rows):  # no two times are the same, and the file is not in their order
        row[2] = str(place * 97 % len(rows))
    path.write_text("\n".join([head, *map("\t".join, rows)]) + "\n")
    theirs, found = theirs_and_ours(alone, duplicates)
    for metric in ("ndcg@5", "ndcg@10", "recall@5", "mrr@10"):
        assert found[metric] == pytest.approx(theirs[metric], abs=1e-6) and theirs[metric] > 0
    for row in rows:
        row[2] = str(int(row[2]) // 50)
    path.write_text("\n".join([head, *map("\t".join, rows)]) + "\n")
    with pytest.raises(UserError, match="items come first at the same time as another"):
        theirs_and_ours(alone, duplicates)
