"""The deployed network as an ONNX file, for runtimes without Python or torch.

It takes what `prism_secure.model.generator.draw_latents` draws: `latents`, float32 (N, latent), standard
normal, and where the model is class-conditional `labels`, int64 (N,). It gives `images`, float32
(N, C, H, W) in [-1, 1]. The seed does not draw weights in another runtime, so they are written out: the file
is as large as the dense network.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from prism_secure.errors import ConfigError, MissingPackage, pip_install
from prism_secure.model.deployed import DeployedGenerator
from prism_secure.model.generator import draw_latents
from prism_secure.model.model_card import ModelCard, plain
from prism_secure.storage import write_atomic

__all__ = ["require_packages", "write_onnx"]

_EXAMPLES = 2
"""Images that the network is traced with; torch takes a batch of one for a constant."""


def require_packages() -> None:
    """Refuse unless an ONNX file can be written here.

    Raises:
        ConfigError: the extra `onnx` is not installed.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less clearly
    except ImportError:
        raise MissingPackage(f"an ONNX file needs packages: {pip_install('onnx')}") from None


def write_onnx(path: Path, model: DeployedGenerator, card: ModelCard | None = None) -> None:
    """Write the network to `path`; the card goes into its documentation and metadata, and nothing else does.

    Raises:
        ConfigError: the extra `onnx` is not installed, or a network of the user's own cannot be traced.
        StorageError: the disk refused.
    """
    require_packages()
    latents, labels = draw_latents(_EXAMPLES, model.architecture, torch.Generator().manual_seed(0))
    named = {"latents": latents} if labels is None else {"latents": latents, "labels": labels}
    try:
        with _quietly():
            program = torch.onnx.export(
                model.network,
                tuple(named.values()),
                input_names=list(named),
                output_names=["images"],
                dynamic_shapes=tuple({0: torch.export.Dim("N")} for _ in named),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        if not model.architecture.network:
            raise
        why = str(error.__cause__ or error).strip().splitlines()
        raise ConfigError(
            f"{model.architecture.own_reference} cannot be written as ONNX; torch says: {' '.join(why[-1:])}"
        ) from error
    assert program is not None
    proto = program.model_proto
    _without_notes(proto)
    proto.producer_name = "prism-secure"
    if card is not None:
        proto.doc_string = card.markdown()
        for key, value in {"licence": card.licence, "classes": ", ".join(card.data.classes)}.items():
            proto.metadata_props.add(key=key, value=plain(value))
    write_atomic(path, proto.SerializeToString())


def _without_notes(part: Any) -> None:
    """Clear documentation and metadata of a protobuf message and of its parts: torch's name files by path."""
    for field, value in part.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            part.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _without_notes(each)


class _quietly(warnings.catch_warnings):
    """torch and onnxscript warn of their own innards, which nobody here can mend."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(kind, error, trace)
