"""TensorBoard events of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from seqcl.training.state import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("seqcl")


class Events:
    """Writes rows as TensorBoard events; nothing is imported and no file is made before the first row.

    A full disk, or a path that TensorBoard cannot take, costs the events alone: the run goes on without them.

    Args:
        folder: folder of the event files.
        step: the step at which this process begins; TensorBoard hides events beyond it, which a crash left behind.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.folder = folder
        self.step = step
        self.broken = False
        self._writer: SummaryWriter | None = None

    def add(self, row: Row) -> None:
        """Write the values of a row under loss/, observed/, valid/ and speed/, at its step."""
        if self.broken:
            return
        try:
            self._add(row)
        except (OSError, UnicodeEncodeError) as error:
            self._give_up(error)

    def _add(self, row: Row) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self.step + 1 if self.step else None)
        step = int(row["step"])
        for name, value in row.items():
            group, _, rest = name.partition("_")
            if group in ("loss", "observed", "valid"):
                self._writer.add_scalar(f"{group}/{rest or 'total'}", value, step)
            elif name in ("lr", "items_per_second"):
                self._writer.add_scalar(f"speed/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file, if there is one."""
        if self._writer is None or self.broken:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.broken = True
        log.warning("TensorBoard events cannot be written (%s); going on without them", error)
