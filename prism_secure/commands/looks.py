"""What `doctor` tries, in a process of its own: a library cut short, or built for other processors, kills it.

One process tries everything, as a run loads everything. Torch is imported as a run imports it, which takes
most of the time; beside it this module imports little.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import msgspec

from prism_secure.errors import PrismError


class Finding(NamedTuple):
    """One line. `level`: "ok"; "missing": only some features need it; "broken": every run does."""

    level: str
    name: str
    text: str


class Look(NamedTuple):
    """Something to try.

    `loads`: packages with libraries of their own. The first is to blame if the process is killed; what else
    loads that one is then not tried. `needed`: by every run.
    """

    name: str
    look: Callable[[], str]
    loads: tuple[str, ...]
    needed: bool = True


_FINDINGS = msgspec.json.Decoder(Finding)


def looks() -> tuple[Look, ...]:
    """In the order in which they are tried. NumPy first: its own complaint comes only once."""
    torch = "torch", "numpy"
    return (
        Look("numpy", _numpy, ("numpy",)),
        Look("torch", _torch, torch),
        Look("graphics card", _cuda, torch),
        Look("features", _features, torch),
        Look("features: vgg19_bn", _vgg, torch, needed=False),
        Look("metrics: inception_v3", _inception, torch, needed=False),
        Look("metrics: inception_fid", _inception_fid, torch, needed=False),
        Look("secure sum", _secure_sum, ("cryptography", "numpy")),
        Look("accountant", _accountant, ("numpy", "cryptography")),
        Look("bundled images", _bundled, ("numpy",)),
        Look("report", _report, ("matplotlib", "numpy")),
    )


def tried_elsewhere() -> Iterator[Finding]:
    """All looks. Where one kills the process, those that do not load the same are tried in another."""
    code = "import sys; names = sys.argv[1].split(','); sys.path[:] = sys.argv[2:]; "
    code += "from prism_secure.commands.looks import tell; tell(names)"
    left = looks()
    while left:
        names = ",".join(look.name for look in left)
        done = subprocess.run(  # noqa: S603 - this Python, and our own code
            [sys.executable, "-c", code, names, *sys.path], stdout=subprocess.PIPE, check=False
        )
        found = [_FINDINGS.decode(line) for line in done.stdout.splitlines()]
        yield from found
        if len(found) == len(left):
            return
        fatal, left = left[len(found)], left[len(found) + 1 :]
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"code {done.returncode}"
        text = f"killed the process that tried it ({how}): "
        text += f"install {fatal.loads[0]} for this machine, or free memory"
        yield Finding("broken", fatal.name, text)
        left = tuple(look for look in left if fatal.loads[0] not in look.loads)


def tell(names: list[str]) -> NoReturn:
    """Try the looks of these names, print each finding as a line of JSON, and end the process."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever else is printed by what is loaded, by its C code, too
    gc.disable()  # a tenth of what torch's import takes
    for name, look, _, needed in looks():
        if name in names:
            lines.write(msgspec.json.encode(tried(name, look, needed)) + b"\n")
    os._exit(0)  # half of a torch can kill it even at its end


def tried(name: str, look: Callable[[], str], needed: bool = True) -> Finding:
    """What comes of one look in this process, whatever it raises."""
    try:
        return Finding("ok", name, look())
    except PrismError as error:
        return Finding("broken" if needed else "missing", name, str(error))
    except Exception as error:  # whatever it is, the other lines are worth reading
        return Finding("broken" if needed else "missing", name, f"{type(error).__name__}: {error}")


def _numpy() -> str:
    import numpy as np

    return np.__version__


def _torch() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    torch.linalg.cholesky(torch.eye(3))
    torch.ones(threads << 16).sum()  # large enough for all of them to be started
    torch.set_num_threads(1)  # from here on: on a busy machine they mostly wait for each other
    return (
        f"{torch.__version__}, {threads} threads, {cores} cores ({torch.backends.cpu.get_cpu_capability()})"
    )


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; none is needed"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _secure_sum() -> str:
    import numpy as np

    from prism_crypto import secure_sum

    result = secure_sum([np.array(bits) for bits in ([0, 1], [1, 1], [1, 1])])
    if list(result.counts) != [2, 3]:
        raise ArithmeticError(f"0+1+1, 1+1+1 came out as {list(result.counts)}")
    return "opens the right sum"


def _accountant() -> str:
    from prism_privacy import Accountant, Adjacency, MaskRelease, View

    accountant = Accountant(delta=1e-5)
    accountant.spend(MaskRelease(flip=0.25, clip=1.0, cohort=1000), rounds=100)
    epsilon = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    if not 3.0 < epsilon < 3.6:
        raise ArithmeticError(f"the example of the README came out as {epsilon}")
    return f"100 rounds of the README's example cost ε = {epsilon:.2f}"


def _bundled() -> str:
    from prism_secure.data.bundled import packed  # which loads lzma, too: some builds of Python lack it

    packed()
    return "fashion_mnist_12k: 10,000 images, 2,000 held out"


def _features() -> str:
    from prism_secure.data.features import EfficientNetLite0

    EfficientNetLite0(image_size=32)
    return "efficientnet_lite0, of metrics too, and fourier"


def _vgg() -> str:
    from prism_secure.data.features import Vgg19Bn

    Vgg19Bn(image_size=32)
    return "weights found"


def _inception() -> str:
    from prism_secure.quality.networks import metric_features

    metric_features("inception_v3")
    return "weights found"


def _inception_fid() -> str:
    from prism_secure.quality.networks import metric_features

    metric_features("inception_fid")
    return "FID's own weights found"


def _report() -> str:
    import jinja2
    import matplotlib

    return f"matplotlib {matplotlib.__version__}, jinja2 {jinja2.__version__}; no browser is needed"
