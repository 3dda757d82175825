"""The machine and the libraries that a result was made with."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from seqcl import processes
from seqcl.errors import UserError
from seqcl.version import VERSION

DEVICES = ("cpu", "cuda", "mps")
"""The types of device that training runs on."""


@contextmanager
def enough_memory() -> Iterator[None]:
    """Inside, memory that is not to be had is a user's mistake: an option asks for more than this machine has.

    Raises:
        UserError: names what was asked for, and the options that such sizes come from.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        wanted = re.search(r"[\d.]+ (?:[KMGTPE]i?B|bytes)|allocate \d+ bytes", text)
        more = f" for {wanted[0].removeprefix('allocate ')}" if wanted else ""
        raise UserError(
            f"this machine has no memory left{more}: lower the option that asks for so much, such as train.batch_size, "
            "encoder.dim, data.max_len, eval.batch_size or a number of negatives"
        ) from error


def pick_device(name: str) -> torch.device:
    """Find a device by name; "auto" is a GPU if there is one.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if processes.count() > 1 and name.startswith("cuda:"):
        raise UserError(
            f"--device {name}: of {processes.count()} processes each takes a card of its own: write --device cuda"
        )
    if name == "cuda" and processes.count() > 1:
        name = f"cuda:{processes.local_number()}"
    try:
        device = torch.device(name)
        if processes.count() > 1 and device.type == "mps":
            raise RuntimeError("several processes need cuda or cpu")
        if device.type not in DEVICES:
            raise RuntimeError(f"nothing trains on a device {device.type!r}")
        torch.empty(0, device=device)
        if device.type == "cuda" and processes.count() > 1:
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:80]
        here = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        raise UserError(f"--device {name}: not here ({reason}); valid: {', '.join(here)}") from None
    return device


def library_versions() -> dict[str, str]:
    """Versions of seqcl and of every library that can change a result; in a checkout of seqcl, the commit too."""
    found = {"seqcl": VERSION, "python": platform.python_version()}
    if (here := commit()) is not None:
        found["commit"] = here
    for name in ("torch", "numpy", "pandas", "scipy", "faiss-cpu", "lightning-fabric"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The git commit of the checkout that this file belongs to, "-dirty" behind it if files differ; None outside a checkout."""
    file = Path(__file__)

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(file.parent), *words],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment may lie inside the checkout of another project, whose commit says nothing of seqcl.
    tracked = git("ls-files", "--error-unmatch", file.name)
    return git("describe", "--always", "--dirty", "--abbrev=7", "--exclude=*") if tracked else None


def about_machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, memory, device and system, as a result records them."""
    several = {"processes": processes.count()} if processes.count() > 1 else {}
    return {
        **several,
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": platform.platform(),
    }


def processor() -> str:
    """Name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Size of the main memory; None where the system does not tell."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def peak_memory_bytes() -> int | None:
    """Largest resident size of this process so far; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_memory() -> None:
    """Return memory that the C library holds unused: batches of many sizes leave holes that add up to gigabytes.

    It takes some 20 ms. Only glibc can be asked; elsewhere nothing happens.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
