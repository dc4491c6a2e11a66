"""A sweep's database waits for no disk, as nothing else in the tests does."""

from __future__ import annotations

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
