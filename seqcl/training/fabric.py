"""Start lightning-fabric without the compiler, whose import takes a second and a half."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["32", "bf16"]


def make_fabric(device: str | torch.device, precision: Precision) -> Fabric:
    """Make a Fabric for one process on `device`; "bf16" is autocast with float32 weights, "32" is float32 throughout."""
    with _without_compiler():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision

    class Autocast(MixedPrecision):
        """Autocast that leaves the batch alone; Fabric's own would turn times, seconds since 1970, into bfloat16."""

        def convert_input(self, data: Any) -> Any:
            return data

    # Fabric announces autocast on stderr at every start, in the middle of the progress line.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = torch.device(device)
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        plugins=[Autocast("bf16-mixed", device.type)] if precision == "bf16" else None,
    )
    fabric.launch()
    return fabric


class _Compiled(type):
    def __instancecheck__(cls, instance: object) -> bool:
        dynamo = sys.modules.get("torch._dynamo")
        return dynamo is not None and isinstance(instance, dynamo.OptimizedModule)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let `from torch._dynamo import OptimizedModule` find a stand-in, which costs nothing.

    Fabric 2.x imports the class for isinstance checks of compiled modules. With it come torch._dynamo, sympy and
    torch.distributed.fsdp: 1.9 s instead of 0.2 s. The stand-in answers the same checks, and asks the real class once
    that has been imported.
    """
    if "torch._dynamo" in sys.modules or "lightning_fabric" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("torch._dynamo")
    stand_in.OptimizedModule = _Compiled("OptimizedModule", (), {})  # type: ignore[attr-defined]
    sys.modules["torch._dynamo"] = stand_in
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"]
