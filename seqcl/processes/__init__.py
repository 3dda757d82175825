"""Several processes that train one model together, started by `torchrun`; with one process nothing here does anything.

Every process draws the same batches and the same views, and encodes its own share of the rows. What is made of all rows is
computed alike everywhere, so every term of the loss has one value on all processes, and the gradient of the run is the mean
of theirs.
"""

from seqcl.processes.group import (
    Gone,
    Told,
    by_first,
    check_same,
    count,
    end,
    first_before_others,
    has_the_word,
    is_first,
    local_number,
    most,
    number,
    of_first,
    start,
    wait,
)
from seqcl.processes.tensors import (
    Counts,
    add_up,
    all_rows,
    check_common_draws,
    mean_gradients,
    own_draws,
    share_of_mean,
)

__all__ = [
    "Counts",
    "Gone",
    "Told",
    "add_up",
    "all_rows",
    "by_first",
    "check_common_draws",
    "check_same",
    "count",
    "end",
    "first_before_others",
    "has_the_word",
    "is_first",
    "local_number",
    "mean_gradients",
    "most",
    "number",
    "of_first",
    "own_draws",
    "share_of_mean",
    "start",
    "wait",
]
