"""The network that an architecture stands for: the built-in ResNet, or one of the user's own.

`model.network = "package.module:name"` names what is called as `ResNetGenerator` is, with the architecture
and `running_statistics`, and gives a `torch.nn.Module` from latents (B, latent), and labels (B,) int64 when
there are classes, to images (B, channels, side, side) in [-1, 1].

A model is (architecture, seed, mask), so nothing else may be learned or kept: no biases, no affine
normalisation, and no memory. One process trains many clients through one network: what it remembered of a
client's mask would reach the next client's upload, past the clip. `check_network` finds memory that shows; a
module bent on hiding it cannot be found out, and the ledger names its code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prism_secure.config import Config
from prism_secure.config.plugged import built, origin
from prism_secure.errors import ConfigError
from prism_secure.model.generator import Architecture, ResNetGenerator, draw_latents

__all__ = ["architecture_of", "build_network", "check_network", "weight_count"]

_SETTING = "model.network"


def architecture_of(config: Config, *, channels: int, classes: int) -> Architecture:
    """A configuration's architecture, for images of 1 or 3 channels; 0 classes: unconditional.

    Raises:
        ConfigError: the module of a network of the user's own cannot be found, or has no source file
            by which a model could name it.
    """
    model, network = config.model, ""
    if config.own_network:
        network = origin(model.network)
        if ", sha256 " not in network:
            raise ConfigError(f"{_SETTING} must be in a module with a source file, got {network}")
    return Architecture(
        latent=model.latent,
        width=model.width,
        max_channels=model.max_channels,
        image_size=model.image_size,
        channels=channels,
        classes=classes,
        weights=model.weights,
        network=network,
    )


def build_network(architecture: Architecture, *, running_statistics: bool = False) -> nn.Module:
    """The network, with weights of no meaning yet.

    Args:
        architecture: the sizes, and whose network it is.
        running_statistics: keep BatchNorm statistics (for a deployed copy); training networks keep none.

    Raises:
        ConfigError: one of the user's own is not here, is another file than the architecture says, cannot be
            called, gives no module, or has weights that no mask covers.
    """
    if not architecture.network:
        return ResNetGenerator(architecture, running_statistics=running_statistics)
    reference = architecture.own_reference
    if (here := origin(reference)) != architecture.network:  # before any of its code runs
        raise ConfigError(f"{_SETTING} must be {architecture.network}, got {here}: its code has changed")
    made = built(
        reference,
        _SETTING,
        architecture,
        called=f"with an Architecture and running_statistics={running_statistics}",
        running_statistics=running_statistics,
    )
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{_SETTING} = {reference!r} must give a torch.nn.Module, got {made!r}")
    shapes = {name: tuple(each.shape) for name, each in made.named_parameters()}
    if not shapes or any(len(shape) < 2 for shape in shapes.values()):
        found = next((f"{name} {shape}" for name, shape in shapes.items() if len(shape) < 2), "none")
        raise ConfigError(
            f"{_SETTING} = {reference!r} must have weights of two or more dimensions only, because a mask "
            f"covers no biases and no affine normalisation; got {found}"
        )
    return made


def weight_count(architecture: Architecture) -> int:
    """d, how many weights a mask chooses from. On the meta device a network has sizes and takes no memory.

    Raises:
        ConfigError: as `build_network`.
    """
    with torch.device("meta"):
        return sum(each.numel() for each in build_network(architecture).parameters())


@torch.no_grad()
def check_network(architecture: Architecture) -> None:
    """Try a network of the user's own on a few latents; of the built-in one there is nothing to try.

    Raises:
        ConfigError: it fails, gives no images of the data's form, keeps or draws anything while it trains, or
            makes an image, once deployed, that depends on those beside it.
    """
    if not architecture.network:
        return
    draws = torch.Generator().manual_seed(0)
    count = max(4, architecture.classes)
    one, other = (draw_latents(count, architecture, draws) for _ in range(2))
    trained = build_network(architecture).train()
    first = _images(trained, one, architecture)
    kept = [each.clone() for each in trained.buffers()]
    _images(trained, other, architecture)
    same = all(map(torch.equal, kept, trained.buffers())) and len(kept) == len([*trained.buffers()])
    if not same or not torch.equal(first, _images(trained, one, architecture)):
        _refuse(
            architecture,
            "give the same images of the same latents whatever it made before: without running_statistics it "
            "may keep nothing, BatchNorm statistics neither, and draw nothing of its own",
        )
    deployed = build_network(architecture, running_statistics=True).train()
    _images(deployed, one, architecture)
    together = _images(deployed.eval(), one, architecture)
    alone = [_images(deployed, _part(one, index), architecture) for index in range(count)]
    if not torch.allclose(torch.cat(alone), together, rtol=1e-3, atol=1e-4):
        _refuse(
            architecture,
            "give an image that does not depend on those beside it once it is in eval mode: with "
            "running_statistics BatchNorm has to keep some",
        )


def _images(network: nn.Module, given: tuple[Tensor, Tensor | None], architecture: Architecture) -> Tensor:
    """Of the form that data have, in [-1, 1]."""
    try:
        images = network(*given)
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(
            f"{_SETTING} = {architecture.own_reference!r} cannot take latents and labels: "
            f"{type(error).__name__}: {error}"
        ) from error
    side = architecture.image_size
    form = (len(given[0]), architecture.channels, side, side)
    if not isinstance(images, Tensor) or tuple(images.shape) != form:
        got = tuple(images.shape) if isinstance(images, Tensor) else images
        _refuse(architecture, f"give images {form}, got {got}")
    if images.dtype != torch.float32 or not bool((images.abs() <= 1).all()):
        _refuse(architecture, f"give float32 images in [-1, 1], got {images.dtype} in {_range(images)}")
    return torch.clone(images)


def _part(given: tuple[Tensor, Tensor | None], index: int) -> tuple[Tensor, Tensor | None]:
    latents, labels = given
    return latents[index : index + 1], None if labels is None else labels[index : index + 1]


def _range(images: Tensor) -> str:
    return f"[{float(images.min()):g}, {float(images.max()):g}]"


def _refuse(architecture: Architecture, must: str) -> None:
    raise ConfigError(f"{_SETTING} = {architecture.own_reference!r} must {must}")
