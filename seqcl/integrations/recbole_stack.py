"""Checks that RecBole can run here, and imports it without the changes that it makes to the process."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from seqcl.errors import UserError

RECBOLE = "1.2.1"
INSTALL = "pip install 'seqcl[recbole]' (from a checkout: pip install -e '.[recbole]') in an environment of Python 3.10 or 3.11"
LIMITS = {
    "numpy": (2, "its configuration uses names that numpy 2 took away"),
    "pandas": (3, "what it fills in place stays as it was"),
    "setuptools": (81, "the ray that it pins imports pkg_resources"),
}
"""The first major version of a package with which RecBole does not work, and why."""


class RecBoleUnusable(UserError, ImportError):
    """RecBole is missing, or cannot work with the installed packages; the message says what to install."""


def check_stack() -> None:
    """Raise RecBoleUnusable unless RecBole can run with this Python and the installed packages."""
    if python() >= (3, 12):
        here = ".".join(map(str, python()))
        raise RecBoleUnusable(f"RecBole {RECBOLE} needs a ray that has no wheel for Python {here}: {INSTALL}")
    found = installed("recbole")
    if found is None:
        raise RecBoleUnusable(f"RecBole is not installed: {INSTALL}")
    if found != RECBOLE:
        raise RecBoleUnusable(f"RecBole {found} is installed and {RECBOLE} is needed: pip install recbole=={RECBOLE}")
    wrong = []
    for package, (limit, reason) in LIMITS.items():
        have = installed(package)
        if have is None or int(have.split(".")[0]) >= limit:
            wrong.append((f"'{package}<{limit}'", f"{package} {have or 'is missing'}: {reason}"))
    if wrong:
        packages, reasons = zip(*wrong, strict=True)
        raise RecBoleUnusable(
            f"RecBole {RECBOLE} cannot work here ({'; '.join(reasons)}): pip install {' '.join(packages)}, or {INSTALL}"
        )


def python() -> tuple[int, int]:
    """Version of the Python that runs this."""
    return sys.version_info[:2]


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def bring(module: str) -> ModuleType:
    """Import a module of RecBole.

    Importing any of RecBole's sequential models switches autograd's anomaly mode on for the whole process, which costs a
    stack trace for every operation. The mode is put back to what it was.

    Raises:
        RecBoleUnusable: RecBole cannot run here.
    """
    check_stack()
    anomaly = torch.is_anomaly_enabled()
    check_nan = torch.is_anomaly_check_nan_enabled()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecBoleUnusable(f"RecBole {RECBOLE} cannot be imported: {error}: {INSTALL}") from error
    finally:
        torch.autograd.set_detect_anomaly(anomaly, check_nan)
