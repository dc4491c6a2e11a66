"""Images, how clients share them, and the frozen public features that they are seen through.

    sources          what is known of each source of images without reading it
    dataset          the images of a run; `load` and its kin, imported when asked for, because of torch
    bundled, published, celeba, idx, image_folder    one module a kind of source
    person_table     whose each picture of a folder is, by a table
    raw              what each of these hands over, and the check that all pass
    deep, fit        pictures of 16 bits brought to 8; all to one size and number of channels
    skipped          which files were left out: told to who runs this, and to nobody else
    partition        who holds which training images
    fingerprint      which data a run reads: kept in its private part, refused where they changed
    public_images    images that belong to nobody, drawn from a seed
    features         the frozen networks
    pinned           files that others made, read only if they are the ones that were looked at
    torchvision_shim  torchvision, also where its compiled operators do not load

Data sets are read here, and nowhere else. It writes a key beside them and, into the private part of a
run folder, what was read under that key.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prism_secure.data.dataset import BUNDLED, SOURCES, Dataset, load, read_idx, to_float

__all__ = ["BUNDLED", "SOURCES", "Dataset", "load", "read_idx", "to_float"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prism_secure.data' has no attribute {name!r}")
    return getattr(import_module("prism_secure.data.dataset"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
