"""What is done but once, and a database that waits for no disk, as nothing else in the tests does."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_power_cut_in_a_database() -> Iterator[None]:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def waiting_for_nothing(connection: object, _: object) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", waiting_for_nothing)
    yield
    event.remove(Engine, "connect", waiting_for_nothing)


@pytest.fixture(autouse=True, scope="session")
def steps_of_a_database_read_once() -> Iterator[None]:
    """Each of a hundred studies compiles the files by which optuna brings an older database forward."""
    from alembic import util

    read = util.load_python_file
    once = functools.lru_cache(64)(read)

    def steps_once(folder: object, file: str) -> object:
        return (read if file == "env.py" else once)(folder, file)  # that one acts when it is read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(util, "load_python_file", steps_once)
        yield
