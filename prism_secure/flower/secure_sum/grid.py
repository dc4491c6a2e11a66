"""The same for apps with a `Strategy`: a `Grid` whose one reply to ``train`` is the mean."""

from __future__ import annotations

from collections.abc import Iterable
from logging import ERROR
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from prism_crypto import CountSpec, Roster, SecureSumError
from prism_secure.errors import ConfigError
from prism_secure.flower.secure_sum import messages as sum_messages
from prism_secure.flower.secure_sum.server import SecureSum


class SecureSumGrid(Grid):
    """Wraps a grid: messages of type ``train`` become a secure sum, all others pass.

    A strategy sends its messages as ever and gets one reply in place of many: the mean over the
    clients in the sum, in the keys, shapes and floating-point types of the arrays that it sent (float64 for
    integers), and ``num-examples``, their number. `FedAvg` and its relatives take it for the
    reply of a single client. A round whose sum does not open has no reply; it is logged, and the strategy
    keeps its arrays.

    Args:
        grid: the grid to wrap.
        roster, federation, options: see `SecureSum`.
        bound: the largest integer that a client replies.
        rounds_before: how many rounds this federation has had before this run: clients never take part
            twice in a round, so a run that begins again at 1 would find nobody.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        federation: str,
        *,
        bound: int = 1,
        rounds_before: int = 0,
        **options: Any,
    ) -> None:
        self._grid = grid
        self._sum = SecureSum(grid, roster, federation, **options)
        self._bound = bound
        self._round = rounds_before

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Sum the replies to messages of type ``train``; pass others on.

        Raises:
            ConfigError: the ``train`` messages are not all alike, or hold no single `ArrayRecord`.
        """
        sent = list(messages)
        if not sent or sent[0].metadata.message_type != "train":
            return self._grid.send_and_receive(sent, timeout=timeout)
        content = sent[0].content
        kinds = {message.metadata.message_type for message in sent}
        contents = {id(message.content): message.content for message in sent}  # most often one, for all
        if len(kinds) > 1 or len({sum_messages.digest(each) for each in contents.values()}) > 1:
            raise ConfigError("a secure sum is over clients that were all sent the same message")
        found = [record for record in content.values() if isinstance(record, ArrayRecord)]
        if len(found) != 1:
            raise ConfigError(f"expected one ArrayRecord, whose shapes the replies have, not {len(found)}")
        self._round += 1
        try:
            result = self._sum.open(
                content,
                CountSpec(sum(int(np.prod(array.shape)) for array in found[0].values()), self._bound),
                round=self._round,
                train_timeout=3600.0 if timeout is None else timeout,
                nodes=[message.metadata.dst_node_id for message in sent],
            )
        except SecureSumError as error:
            log(ERROR, "secure sum: round %d is lost: %s", self._round, error)
            return []
        survivors = len(result.survivors)
        mean = RecordDict(
            {
                next(name for name, record in content.items() if record is found[0]): _shaped(
                    found[0], result.counts / survivors
                ),
                "metrics": MetricRecord({"num-examples": survivors}),
            }
        )
        return [Message(mean, reply_to=sent[0])]

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        return self._grid.create_message(*arguments, **options)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)


def _shaped(like: ArrayRecord, flat: np.ndarray) -> ArrayRecord:
    """`flat` cut into the keys and shapes of `like`."""
    arrays, start = {}, 0
    for name, array in like.items():
        size = int(np.prod(array.shape))
        dtype = np.dtype(array.dtype)
        part = flat[start : start + size].reshape(array.shape)
        arrays[name] = Array(part.astype(dtype if dtype.kind == "f" else np.float64))
        start += size
    return ArrayRecord(arrays)
