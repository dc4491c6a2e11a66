"""Which modules beside the tests are not to be imported when doctests are looked for; and how pools begin."""

import multiprocessing

import pytest

# They change torch for the whole process, or are scripts.
collect_ignore = ["second_device.py", "track_privately.py", "train_on_card.py"]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers fork from this process, which has torch loaded, where they would import it anew."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork)
