"""What the machine is and what it can do: features, load, and the limits that bound any network.

The limits are measured, not looked up: the best rate of a few dense convolutions, and how fast
memory is read and written. Both are lower bounds of what the hardware could do.
"""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from comparison.speed.timing import wait_for

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BFLOAT16 = ("avx512_bf16", "amx_bf16")
# Batch, channels in, height and width, channels out, kernel: dense, and large enough to be busy.
DENSE = ((8, 256, 28, 256, 3), (8, 128, 56, 128, 3), (8, 512, 14, 512, 3), (8, 512, 28, 512, 1))
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
TRIES = 6
STREAM_ELEMENTS = 2**25  # 128 MiB an array: larger than caches


def features() -> list[str]:
    """List the features of the CPU that decide about speed here; none where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return [name for name in FEATURES if name in flags]


def has_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16; else such arithmetic is emulated, and slow."""
    return bool(set(BFLOAT16) & set(features()))


def load() -> float:
    """Return how many processes wanted to run over the last minute."""
    return os.getloadavg()[0]


def described() -> dict[str, Any]:
    """Say what was measured on."""
    return {
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "features": features(),
        "threads": torch.get_num_threads(),
    }


def _best(work: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of several calls, in seconds."""
    taken = []
    for _ in range(TRIES):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def convolution_rates(precision: str, device: torch.device) -> list[dict[str, Any]]:
    """Measure the rate of each dense convolution, in the better of two layouts.

    Args:
        precision: ``float32`` or ``bfloat16``.
        device: Where.

    Returns:
        Rows with `gflops` (10^9 floating-point operations a second, two a multiply-accumulate)
        and `intensity` (operations a byte that must be read or written at least once).
    """
    kind = getattr(torch, precision)
    rows = []
    for batch, channels, side, outputs, kernel in DENSE:
        images = torch.randn(batch, channels, side, side, device=device, dtype=kind)
        weight = torch.randn(outputs, channels, kernel, kernel, device=device, dtype=kind)
        operations = 2 * batch * side**2 * outputs * channels * kernel**2
        moved = (images.numel() + weight.numel() + batch * outputs * side**2) * kind.itemsize
        for layout, memory_format in LAYOUTS.items():
            x, w = (t.contiguous(memory_format=memory_format) for t in (images, weight))
            with torch.inference_mode():
                seconds = _best(partial(functional.conv2d, x, w, padding="same"), device)
            rows.append(
                {
                    "limit": "convolution",
                    "precision": precision,
                    "shape": f"{batch}x{channels}x{side}x{side} to {outputs}, {kernel}x{kernel}",
                    "layout": layout,
                    "gflops": operations / seconds / 1e9,
                    "intensity": operations / moved,
                }
            )
    return rows


def bandwidth(device: torch.device) -> float:
    """Measure how many 10^9 bytes a second an addition reads and writes."""
    a = torch.ones(STREAM_ELEMENTS, device=device)
    b, out = torch.ones_like(a), torch.empty_like(a)
    seconds = _best(lambda: torch.add(a, b, out=out), device)
    return 3 * a.numel() * a.itemsize / seconds / 1e9


def limits(precision: str, device: torch.device) -> list[dict[str, Any]]:
    """Measure both limits of the roofline; the largest rate is the roof."""
    empty = {"precision": precision, "shape": "", "layout": "", "gflops": None, "intensity": None}
    rows = [{**row, "gbytes_per_s": None} for row in convolution_rates(precision, device)]
    return [*rows, {"limit": "memory", **empty, "gbytes_per_s": bandwidth(device)}]
