"""What this machine can do at most, on one thread: measured, not read off a box."""

from __future__ import annotations

import os
import platform
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from prism_secure.bench.rows import in_turn


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


@cache
def copied_bytes() -> float:
    """Bytes a second that a copy reads, and as many that it writes, beyond all caches."""
    source = np.ones(32 << 20, dtype=np.uint64)
    target = np.empty_like(source)
    (taken,) = in_turn(5, lambda: np.copyto(target, source))
    return source.nbytes / min(taken)


@cache
def keystream_bytes(by_gcm: bool = False) -> float:
    """Bytes a second of AES-256-CTR, or of AES-256-GCM, into a buffer of 64 KiB."""
    mode = modes.GCM(bytes(12)) if by_gcm else modes.CTR(bytes(16))
    encryptor = Cipher(algorithms.AES(bytes(32)), mode).encryptor()
    zeros, target = bytes(65536), bytearray(65536)
    (taken,) = in_turn(7, lambda: encryptor.update_into(zeros, target))
    return 65536 / min(taken)


def machine() -> dict[str, str | float]:
    """The processor and its limits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": f"{_processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}",
        "python": f"{platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "fastest fp32 kernel, GFLOP/s": fp32_flops() / 1e9,
        "copy, GB/s": copied_bytes() / 1e9,
        "AES-256-CTR, GB/s": keystream_bytes() / 1e9,
        "AES-256-GCM, GB/s": keystream_bytes(by_gcm=True) / 1e9,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
