"""Read the tensors of a file that somebody's torch wrote: nothing in it is executed."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from seqcl.errors import UserError, brief


class Unread:
    """Stands for any object of a file that is no tensor: it takes what it is given, and does nothing with it."""

    def __init__(self, *given: Any) -> None:
        pass

    def __call__(self, *given: Any) -> Unread:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        """Take the members of a list."""


class Tensors(pickle.Unpickler):
    """Reads tensors and their containers; of any other name in a file, nothing is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """The maker of tensors or the container of that name, else `Unread`."""
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return getattr(torch._utils, name)
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else Unread


def read_tensors(path: Path, *, recbole: bool = False) -> dict[str, Tensor]:
    """Read the weights of a file of `torch.save`, by name, on the CPU.

    A file of RecBole holds its configuration and its optimizer too. They are not made: `Unread` stands in their place.

    Args:
        path: the file.
        recbole: RecBole wrote it.

    Raises:
        UserError: no such file, one that holds more than tensors, or no weights.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol of a pickle
            found = recbole_tensors(path) if recbole else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError) as error:  # fmt: skip
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds more than tensors ({asked[1]}) and is not read, as that could run code; where you trust it, "
                "save its state_dict() alone"
            ) from None
        reason = "it is damaged" if isinstance(error, pickle.UnpicklingError) else brief(error)
        raise UserError(f"{path} is no checkpoint of {'RecBole' if recbole else 'torch'}: {reason}") from None
    if not isinstance(found, Mapping) or not found or not all(isinstance(one, Tensor) for one in found.values()):
        raise UserError(f"{path} holds no weights by name, as model.state_dict() gives them")
    return dict(found)


def recbole_tensors(path: Path) -> Any:
    """The weights in a checkpoint of RecBole, which is written by a protocol that `weights_only` does not read."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive")
    reader = SimpleNamespace(__name__="tensors", Unpickler=Tensors)
    return torch.load(path, "cpu", weights_only=False, pickle_module=reader)["state_dict"]
