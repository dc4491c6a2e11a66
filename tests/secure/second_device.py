"""A second device for tests, made of the CPU: `import second_device`, and "card" is where tensors can go.

What is on it is computed by the CPU on hidden tensors, and an operation on tensors of two devices fails,
as on a graphics card. Importing it changes torch for the whole process, so tests do it in one of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("card")
HIDDEN: dict[int, tuple[torch.Tensor, Any]] = {}
"""By storage: the CPU's tensor, and the storage, so that no other takes its address."""


class OnCard(torch.Tensor):
    @staticmethod
    def __new__(cls, hidden: torch.Tensor) -> OnCard:
        made = torch._C._acc.create_empty_tensor(hidden.shape, hidden.dtype)
        made.__class__ = cls
        storage = made.untyped_storage()
        HIDDEN[storage._cdata] = hidden.contiguous(), storage
        return made

    def __init__(self, hidden: torch.Tensor) -> None:
        pass


def on_card(x: object) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == "card"


def hidden(x: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return HIDDEN[x.untyped_storage()._cdata][0] if on_card(x) else x


def kernel(op: Any, *args: Any, **options: Any) -> Any:
    """Any operation: in place and `out=` it returns what it was given, else a new tensor on the card."""
    if op.name() == "aten::_copy_from":
        hidden(args[1]).copy_(hidden(args[0]))
        return args[1]
    given, shape = _pytree.tree_flatten((args, options))
    tensors = [x for x in given if isinstance(x, torch.Tensor)]
    if any(x.dim() and not on_card(x) for x in tensors):
        raise RuntimeError(f"{op.name()}: tensors of two devices")
    there = {id(hidden(x)): x for x in tensors}

    def away(x: Any) -> Any:
        return hidden(x) if isinstance(x, torch.Tensor) else torch.device("cpu") if on_device(x) else x

    def back(x: Any) -> Any:
        return there[id(x)] if id(x) in there else OnCard(x) if isinstance(x, torch.Tensor) else x

    found_args, found_options = _pytree.tree_unflatten([away(x) for x in given], shape)
    return _pytree.tree_map(back, op(*found_args, **found_options))


def on_device(x: object) -> bool:
    return isinstance(x, torch.device)


def _convolution_backward(*args: Any) -> Any:
    gradient, x, weight, *rest = args
    return kernel(torch.ops.aten.convolution_backward.default, gradient, x, weight, None, *rest)


_all = torch.library.Library("_", "IMPL")
_all.fallback(kernel, "PrivateUse1")
_some = torch.library.Library("aten", "IMPL")
# These are put together from views, which a hidden tensor of its own would not see written to.
for _name, _op in (
    ("convolution_overrideable", torch.ops.aten.convolution.default),
    ("constant_pad_nd", torch.ops.aten.constant_pad_nd.default),
    ("slice.Tensor", torch.ops.aten.slice.Tensor),  # from where it begins; to be read alone
):
    _some.impl(_name, lambda *args, op=_op: kernel(op, *args), "PrivateUse1")
_some.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
