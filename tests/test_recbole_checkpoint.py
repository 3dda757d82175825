"""A checkpoint of RecBole's is opened by a process that has made nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
