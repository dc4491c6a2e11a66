"""What this machine can do at most, on one thread, with memory and ciphers: measured, not read off a box."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from prism_crypto.bench.rows import in_turn

__all__ = ["copied_bytes", "keystream_bytes", "machine"]


@cache
def copied_bytes() -> float:
    """Bytes a second that a copy of 64 MiB reads, and as many that it writes, beyond a core's caches."""
    source = np.ones(8 << 20, dtype=np.uint64)
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
        "processor": f"{_processor()}, {cores} cores",
        "python": platform.python_version(),
        "packages": f"numpy {np.__version__}, cryptography {version('cryptography')}",
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
