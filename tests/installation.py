"""Whether what pip installed works together: import every module, and make a tiny run.

`make test-newest` and `make test-lowest` run this script in environments of their own: with the newest of
everything, and with the oldest that pyproject.toml allows.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
import tempfile
import time

PACKAGES = ("prism_crypto", "prism_privacy", "prism_secure")
TINY = (
    "federation.clients=3", "federation.rounds=2", "federation.local_steps=2", "model.width=4",
    "training.batch_size=20", "training.end_steps=1", "metrics.samples=200", "metrics.utility=off",
)  # fmt: skip


def main() -> None:
    began = time.monotonic()
    for name in ("torch", "torchvision", "numpy", "flwr", "optuna"):
        print(f"{name} {importlib.metadata.version(name)}", end="  ")
    modules = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        modules += [found.name for found in pkgutil.walk_packages(path, f"{package}.")]
    for module in modules:
        importlib.import_module(module)
    print(f"\n{len(modules)} modules imported, {time.monotonic() - began:.0f} s")
    from prism_secure.cli import main as prism_secure

    with tempfile.TemporaryDirectory() as folder:
        run, model = f"{folder}/run", f"{folder}/model.safetensors"
        for arguments in (
            [
                "run",
                "--out",
                run,
                "--recipe",
                "one-shot",
                *(word for setting in TINY for word in ("--set", setting)),
            ],
            ["audit", "run", run],
            ["export", run, "--out", model, "--onnx", f"{folder}/model.onnx"],
            ["generate", "--model", model, "--count", "10", "--out", f"{folder}/grid.png"],
            ["config", "--epsilon"],
            ["report", run],
        ):
            if code := prism_secure(arguments):
                sys.exit(f"prism-secure {arguments[0]} ended with {code}")
    print(f"everything worked, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
