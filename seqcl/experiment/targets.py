"""The test targets that finished runs of one protocol rank: whose they are, and in which slices they fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from seqcl.errors import UserError
from seqcl.evaluation.slices import by_popularity, thirds
from seqcl.experiment.finished import Finished


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The W test targets of a split."""

    users: np.ndarray  # (W,), the user of each
    slices: dict[str, np.ndarray]  # those of frequent, rare and cold items, of short and long histories: (W,) bool each

    @classmethod
    def of(cls, runs: Sequence[Finished], dataset: str | None = None) -> Targets:
        """Read them from the log of the first run that keeps one.

        Args:
            runs: finished runs of one protocol.
            dataset: where the log is, if no run keeps it and its name does not say it.

        Raises:
            UserError: none of the runs keeps its packed log, and their data set cannot be read or is another one now.
        """
        from seqcl import config
        from seqcl.experiment.keeping import PACKED, home_of, packed_log

        run = next((run for run in runs if (home_of(run.folder) / PACKED).exists()), runs[0])
        if run.folder.is_dir():
            experiment = config.of_run(home_of(run.folder))
            sequences = packed_log(experiment, run.folder)
        else:
            experiment = config.experiment(yaml.safe_load(run.config), stored=True)
            try:
                sequences = experiment.data.sequences(dataset or experiment.options.dataset)
            except UserError as error:
                raise UserError(
                    f"{run.folder} has no log, which slices are made of, and its data set is not here: {error}"
                ) from None
        if sequences.fingerprint != run.data["fingerprint"]:
            raise UserError(f"{run.folder} keeps no packed log, and its data set {run.data['name']} is another one now")
        split = experiment.data.split_windows(sequences)
        windows, counts = split.test, split.train.item_counts()
        targets = windows.items[windows.stop]
        parts = {f"{name} items": items[targets] for name, items in by_popularity(counts).items()}
        parts["cold items"] = counts[targets] == 0
        lengths = windows.stop - windows.offsets[windows.users]
        parts |= {f"{name} histories": rows for name, rows in thirds(lengths).items()}
        return cls(users=windows.users, slices=parts)
