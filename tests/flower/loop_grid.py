"""A grid without Flower's processes: each message is handled in this one, by the app, as a node would."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


class LoopGrid(Grid):
    """`nodes` maps node ids to clients' folders; `tamper(node, kind, reply)` may change or drop a reply."""

    def __init__(self, app: ClientApp, nodes: dict[int, Path]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
        self.app = app
        self.contexts = {
            node: Context(7, node, {"folder": str(folder)}, RecordDict(), {})
            for node, folder in nodes.items()
        }
        self.tamper: Callable[[int, str, Message], Message | None] = lambda node, kind, reply: reply
        self.sent: list[tuple[int, str]] = []
        self.replies: list[Message] = []
        self._pool = ThreadPoolExecutor(8)
        self._ids = itertools.count(1)
        self._waiting: dict[str, Any] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            name = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = name
            self._waiting[name] = self._pool.submit(self._handle, message)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = {name: self._waiting[name] for name in message_ids if name in self._waiting}
        wait(asked.values(), timeout=1)  # or the server would sleep before it looks again
        done = [name for name, future in asked.items() if future.done()]
        replies = [self._waiting.pop(name).result() for name in done]
        self.replies += [reply for reply in replies if reply is not None]
        return [reply for reply in replies if reply is not None]

    def _handle(self, message: Message) -> Message | None:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        self.sent.append((node, kind))
        message = message_from_proto(message_to_proto(message))  # nobody shares objects with the server
        try:
            reply = self.app(message, self.contexts[node])
        except Exception as error:
            reply = Message(Error(1, f"{type(error)}:<'{error}'>"), reply_to=message)
        return self.tamper(node, kind, reply)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return [reply for message in messages if (reply := self._handle(message)) is not None]

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=7)

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError
