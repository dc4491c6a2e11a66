"""What a round costs: bytes in Flower's messages, and processor time beside Flower's own transport."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


class MeasuredGrid(Grid):
    """Counts the bytes of all messages, and the processor time of this thread that is spent in the grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.down = self.up = self.messages = 0
        self.seconds = 0.0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.down += sum(map(_bytes, messages))
        self.messages += len(messages)
        return self._inside(lambda: self._grid.push_messages(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = self._inside(lambda: list(self._grid.pull_messages(message_ids)))
        self.up += sum(map(_bytes, replies))
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """As Flower's: it looks for replies every three seconds."""
        messages = list(messages)
        self.down += sum(map(_bytes, messages))
        self.messages += len(messages)
        replies = self._inside(lambda: list(self._grid.send_and_receive(messages, timeout=timeout)))
        self.up += sum(map(_bytes, replies))
        return replies

    def _inside(self, action: Callable[[], Any]) -> Any:
        began = time.thread_time()
        try:
            return action()
        finally:
            self.seconds += time.thread_time() - began

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        return self._grid.get_nodes()

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        return self._grid.create_message(*arguments, **options)


class Round:
    """Measures one round of a server; counting the bytes is not in its time."""

    def __init__(self, grid: MeasuredGrid) -> None:
        self._grid = grid

    def __enter__(self) -> Round:
        grid = self._grid
        grid.down = grid.up = grid.messages = 0
        grid.seconds = 0.0
        self._wall, self._began = time.monotonic(), time.time()
        self._cpu = time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        grid = self._grid
        self.figures = {
            "wall_seconds": time.monotonic() - self._wall,
            "server_seconds": time.thread_time() - self._cpu - grid.seconds - _counting.seconds,
            "transport_seconds": grid.seconds,
            "bytes_down": grid.down,
            "bytes_up": grid.up,
            "messages": grid.messages,
            "began": self._began,
        }
        _counting.seconds = 0.0


def write(rounds: list[dict[str, float]], path: str) -> None:
    """The mean over all rounds but the first, which is a warm-up where there are others."""
    kept = rounds[1:] or rounds
    mean = {key: sum(figures[key] for figures in kept) / len(kept) for key in kept[0]}
    Path(path).write_text(json.dumps(mean | {"began": kept[0]["began"], "rounds": len(kept)}))


class _Counting:
    seconds = 0.0


_counting = _Counting()


def _bytes(message: Message) -> int:
    """The bytes of all objects that Flower makes of a message."""
    began = time.thread_time()
    total = sum(len(part.deflate()) for part in get_all_nested_objects(message).values())
    _counting.seconds += time.thread_time() - began
    return total


class _Training(threading.local):
    seconds = 0.0


_training = _Training()


@contextmanager
def training() -> Iterator[None]:
    """What the user's own training takes is no cost of the sum, on either side."""
    began = time.thread_time()
    try:
        yield
    finally:
        _training.seconds += time.thread_time() - began


def seconds_of(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action gives, and the processor seconds of this thread for it, without `training`."""
    began, before = time.thread_time(), _training.seconds
    result = action()
    return result, time.thread_time() - began - (_training.seconds - before)


def timed(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """A client mod: processor seconds of handling one message, appended to a file of the node."""
    reply, seconds = seconds_of(lambda: call_next(message, context))
    note(context, message.metadata.message_type, seconds)
    return reply


def note(context: Context, what: str, seconds: float) -> None:
    node = context.node_config.get("node", context.node_config.get("partition-id"))
    path = Path(str(context.run_config["figures"])) / f"client-{node}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"at": time.time(), "what": what, "seconds": seconds}) + "\n")
