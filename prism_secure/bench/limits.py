"""What this machine's arithmetic can do at most, on one thread: measured, not read off a box."""

from __future__ import annotations

from functools import cache, partial

import torch

from prism_crypto.bench import limits
from prism_crypto.bench.rows import in_turn


@cache
def fp32_flops() -> float:
    """Multiplications and additions a second of the fastest fp32 kernel found: matrix products and 3×3
    convolutions of sizes that stay in cache. No pure loop of FMA, which only compiled code could be."""
    best = 0.0
    for size in (256, 512, 1024):
        (taken,) = in_turn(5, partial(torch.mm, torch.rand(size, size), torch.rand(size, size)))
        best = max(best, 2 * size**3 / min(taken))
    for channels, side in ((64, 32), (128, 16)):
        x = torch.rand(16, channels, side, side).contiguous(memory_format=torch.channels_last)
        w = torch.rand(channels, channels, 3, 3)
        (taken,) = in_turn(5, partial(torch.nn.functional.conv2d, x, w, padding=1))
        best = max(best, 2 * 16 * channels**2 * 9 * side**2 / min(taken))
    return best


def machine() -> dict[str, str | float]:
    """The processor and its limits, those of memory and ciphers among them."""
    return limits.machine() | {
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
        "fastest fp32 kernel, GFLOP/s": fp32_flops() / 1e9,
    }
