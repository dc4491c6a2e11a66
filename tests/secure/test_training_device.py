"""Training on another device than the CPU: same results up to rounding, and nothing of it stays there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prism_secure.config import load_config
from prism_secure.errors import ConfigError
from prism_secure.rounds.components import Components

HERE = Path(__file__).parent


@pytest.mark.skipif(not hasattr(torch._C, "_acc"), reason="this torch has no devices written in Python")
def test_results_agree_with_the_cpus_and_come_back_to_it() -> None:
    done = subprocess.run(
        [sys.executable, HERE / "train_on_card.py"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 6
    for each in found:
        assert each["devices"] == ["cpu"]
        assert each["apart"] < 1e-3 < each["moved"]


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"device is 'cuda:1', but torch .* finds 0 graphics cards"):
        _ = Components(load_config(None, ["federation.device=cuda:1", "model.width=2"])).trainer


@pytest.mark.parametrize("name", ["gpu", "cuda:", "CPU", ""])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"device must be cpu, cuda, or cuda:0"):
        load_config(None, [f"federation.device={name}"])
