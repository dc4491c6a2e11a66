"""Secure sums for apps with a `Strategy`: a `Grid` whose one reply to ``train`` is the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import ERROR
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from prism_crypto import (
    FixedPoint,
    InputError,
    PolicyError,
    Roster,
    SecureSumError,
    SecureSumResult,
    Stage,
)
from prism_crypto.session import SPARSE_FAILURE
from prism_secure.errors import ConfigError, RoundError
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation.server import SecureSum
from prism_secure.flower.secure_aggregation.terms import Codec, Metrics, Terms, Weight
from prism_secure.run_folder.enrolment import read_membership

Lost: TypeAlias = Literal["raise", "skip"]


class Asked(tuple[int, ...]):
    """The ids of those who are about to be asked for their uploads, and what their session guarantees.

    Attributes:
        cohort: honest clients in the sum, whatever becomes of the others: `Session.min_cohort`.
        colluders: how many that takes for colluders.
        sum_failure: probability that its graph fails to hide uploads, for which a release's delta pays.
    """

    cohort: int
    colluders: int
    sum_failure: float


class SecureSumGrid(Grid):
    """Wraps a grid: messages of type ``train`` become a secure sum, all others pass.

    A strategy sends its messages as ever and gets one reply in place of many: the mean over the
    clients in the sum, in the keys, shapes and floating-point types of the arrays that it sent (float64 for
    integers), and ``num-examples``, the sum of their weights, or their number. `FedAvg` and its relatives
    take it for the reply of a single client.

    A round is over the nodes that the strategy sends to. If these are fewer than the roster has clients (it
    samples by ``fraction_train``, or a node is away), they are asked who they are, once each, and they alone
    are invited to the session.

    Args:
        grid: the grid to wrap.
        roster, federation, options: see `SecureSum`; ``run_config=context.run_config`` is among them.
        bound, codec, weight, max_weight, metrics: those of the clients, see `prism_secure.flower.secure_sum`.
        binding: what clients bind beside the run configuration, see `prism_secure.flower.secure_sum`.
        lost: what a round is whose sum does not open. ``"raise"``: an error. ``"skip"``: a line in the log
            and no reply, so that the strategy keeps its arrays; but an error as long as no round has opened,
            because a strategy that gets no reply at all ends well, with an empty model.
        rounds_before: how many rounds this federation has had before this run: clients never take part
            twice in a round, so a run that begins again at 1 would find nobody.
        charge: told the ids of those who are about to be asked for their uploads, and the `cohort` that the
            session guarantees (`Asked`): what a round costs each of them is charged here. `spent` of
            `prism_secure.plug_in.track`, given them as they are, refuses a release that counts on a larger
            cohort: the session needs `min_survivors` of the release's cohort and the colluders, and on a
            sparse graph `min_cohort`, and a release whose `sum_failure` is 2^-40. What it raises ends the run
            before anything has left.

    Attributes:
        result: the last round that opened (`prism_crypto.SecureSumResult`), None before.
    """

    result: SecureSumResult | None = None

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        federation: str,
        *,
        bound: int = 1,
        codec: Codec = None,
        weight: Weight = None,
        max_weight: int | FixedPoint | None = None,
        metrics: Metrics | None = None,
        binding: bytes = b"",
        lost: Lost = "raise",
        rounds_before: int = 0,
        charge: Callable[[Asked], object] | None = None,
        **options: Any,
    ) -> None:
        if lost not in get_args(Lost):
            raise ConfigError(f'lost must be "raise" or "skip", got {lost!r}')
        self._grid = grid
        self._roster = roster
        self._terms = Terms.of(bound, codec, weight, max_weight, metrics)
        self._charge = charge
        self._binding = binding
        self._lost = lost
        self._opened = False
        self._sum = SecureSum(grid, roster, federation, **options)
        self._round = rounds_before

    @classmethod
    def enrolled(cls, grid: Grid, context: Context, **options: Any) -> Self:
        """A grid for an app whose run configuration says where the server is enrolled.

        Args:
            grid: the grid to wrap.
            context: of the server's app. ``folder`` in its run configuration names the server's folder, or
                ``clients-folder`` the one in which it is called ``server``, as in a simulation; the run
                configuration is bound into each session.
            options: see the class.

        Raises:
            ConfigError: the run configuration names neither.
            RunFolderError: the folder is not enrolled.
        """
        config = context.run_config
        if "folder" not in config and "clients-folder" not in config:
            raise ConfigError("the run's configuration must name the server's folder, or clients-folder")
        folder = Path(str(config.get("folder", Path(str(config.get("clients-folder"))) / "server")))
        federation, roster = read_membership(folder.expanduser())
        return cls(grid, roster, federation, run_config=config, **options)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Sum the replies to messages of type ``train``; pass others on.

        Raises:
            ConfigError: the ``train`` messages are not all alike, or hold no single `ArrayRecord`.
            RoundError: the round is lost, see `lost`.
            PolicyError, InputError: the settings are not sound together, see `prism_crypto.Session.plan`.
        """
        sent = list(messages)
        kinds = {message.metadata.message_type for message in sent}
        if "train" not in kinds:
            return self._grid.send_and_receive(sent, timeout=timeout)
        content = sent[0].content
        contents = {id(message.content): message.content for message in sent}  # most often one, for all
        if len(kinds) > 1 or len({sum_messages.digest(each) for each in contents.values()}) > 1:
            raise ConfigError("a secure sum is over clients that were all sent the same message")
        found = [record for record in content.values() if isinstance(record, ArrayRecord)]
        if len(found) != 1:
            raise ConfigError(f"expected one ArrayRecord, whose shapes the replies have, not {len(found)}")
        nodes = [message.metadata.dst_node_id for message in sent]
        self._round += 1
        try:
            result = self._sum.open(
                content,
                self._terms.spec(sum(int(np.prod(array.shape)) for array in found[0].values())),
                round=self._round,
                binding=self._binding,
                train_timeout=3600.0 if timeout is None else timeout,
                nodes=nodes,
                invite="asked" if len(nodes) < len(self._roster) else "roster",
                closed=self._closed,
            )
        except (InputError, PolicyError):  # of the server's own settings: no round, and none will be
            raise
        except SecureSumError as error:
            return self._lose(error)
        try:
            values, metrics = self._terms.mean(result.counts, len(result.survivors))
        except InputError as error:  # no weight in the sum
            return self._lose(error)
        self._opened, self.result = True, result
        mean = RecordDict(
            {
                next(name for name, record in content.items() if record is found[0]): _shaped(
                    found[0], values
                ),
                "metrics": metrics,
            }
        )
        return [Message(mean, reply_to=sent[0])]

    def _lose(self, error: SecureSumError) -> list[Message]:
        if self._lost == "skip" and self._opened:
            log(ERROR, "secure sum: round %d is lost: %s", self._round, error)
            return []
        more = "no round has opened yet" if self._lost == "skip" else 'lost="skip" goes on without it'
        raise RoundError(f"round {self._round} is lost: {error} ({more})") from error

    def _closed(self, stage: Stage, clients: tuple[int, ...]) -> None:
        if stage is Stage.SHARE and self._charge is not None:  # the next message asks for uploads
            session = self._sum.session
            assert session is not None
            asked = Asked(clients)
            asked.cohort, asked.colluders = session.min_cohort, session.colluders
            asked.sum_failure = 0.0 if session.graph == "complete" else SPARSE_FAILURE
            self._charge(asked)

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
