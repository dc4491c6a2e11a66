"""Tests of the Flower side; those marked slow run with `make test-slow-flower`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..secure.conftest import (  # noqa: F401 - what servers of recipes do as runs do, once here, too
    axes_of_public_images_found_once,
    features_of_the_same_images_found_once,
    frozen_features_built_once,
    public_images_drawn_once,
)

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parent))  # parties import the apps of these tests by name


@pytest.fixture(autouse=True, scope="session")
def parties_end_with_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getppid", os.getpid)
        yield


@pytest.fixture(autouse=True, scope="module")
def client_processes_end_with_their_module() -> Iterator[None]:
    from client_processes import end_client_processes  # which imports Flower, as told above

    yield
    end_client_processes()


@pytest.fixture
def one_client_process(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One process that has loaded torch serves the clients of all federations of a test."""
    from prism_secure.flower.secure_aggregation import client, link

    owner = str(tmp_path_factory.getbasetemp())  # no other tests of this machine
    monkeypatch.setattr(client, "ask", lambda _, *request: link.ask(owner, *request))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))  # many processes: a busy machine takes its time
