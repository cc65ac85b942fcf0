"""What this machine computes on, and how precisely."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from tpseg.core.errors import UsageError


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else a GPU if there is one, else the CPU; raises UsageError for one that is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{name}' is not available here ({str(error).splitlines()[0]}); try 'cpu'") from error


def bf16_is_native(device: torch.device | None = None) -> bool:
    """Whether this machine computes in bfloat16 rather than emulating it.

    A processor counts for no more than PyTorch may use of it (ATEN_CPU_CAPABILITY).
    """
    device = device or pick_device()
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            return False
        checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(check() for check in checks if check is not None)
    return False


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 where the processor has it, else 32 bit."""
    return torch.autocast(device.type, torch.bfloat16) if bf16_is_native(device) else nullcontext()
