"""The server's side of the secure sum, for any app: `SecureSum` over the nodes of a `Grid`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from logging import INFO, WARNING
from pathlib import Path
from typing import Literal, TypeAlias

from flwr.app import Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from prism_crypto import (
    Blame,
    CountSpec,
    Mode,
    Roster,
    SecureSumError,
    SecureSumResult,
    SecureSumServer,
    Session,
    Stage,
    ThresholdError,
)
from prism_crypto.hello import check_hello, new_challenge
from prism_crypto.session import GraphKind, Suite
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation.blamed import keep_blamed, read_blamed
from prism_secure.run_folder.enrolment import session_clock

_LONGEST_POLL = 3.0
Watcher = Callable[[Stage, tuple[int, ...]], None]
Graph: TypeAlias = GraphKind | Literal["auto"]


class SecureSum:
    """Opens sums over a grid, one session at a time.

    Args:
        grid: where the nodes are.
        roster: the clients' public keys. Who is invited to a session and has no node, or is silent for too
            long, has dropped out of that session and may be back in the next one.
        federation: its name, as the clients were enrolled.
        run_config: ``context.run_config`` of the server's app; a client that was given another one takes part
            in no sum. None: the app has no run configuration.
        mode, threshold, min_survivors, min_cohort, colluders, suite: see `prism_crypto.Session.plan`.
        graph, dropout: see there, too. By default all mask with all, and where more than 200 are invited each
            with some: then other survivors and colluders are the default, and epsilon's delta pays 2^-40.
        kept: a file in which `blamed` is kept, so that it lasts beyond this process; None: it does not.
        timeout: seconds that a stage may take, the upload excepted.
        poll: seconds between two looks for replies, at first. They grow to a tenth of what a stage has taken,
            and to no more than Flower's own three seconds.

    Attributes:
        blamed: who has broken the protocol in a session of this object, or as `kept` says in an earlier one,
            with evidence. They are left out of the next ones, as many as `min_survivors` and the size of an
            offer allow.
        session: the last that was planned (`prism_crypto.Session`), None before.

    Raises:
        RunFolderError: `kept` holds something else.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        federation: str,
        *,
        run_config: sum_messages.RunConfig | None = None,
        mode: Mode | str = Mode.ACTIVE,
        threshold: int | None = None,
        min_survivors: int | None = None,
        min_cohort: int | None = None,
        colluders: int | None = None,
        graph: Graph = "auto",
        dropout: float = 0.1,
        suite: Suite = "x25519",
        kept: str | os.PathLike[str] | None = None,
        timeout: float = 120.0,
        poll: float = 0.02,
    ) -> None:
        self._grid = grid
        self._roster = roster
        self._federation = federation
        self._run_config = run_config or {}
        self._mode = mode
        self._threshold = threshold
        self._min_survivors = min_survivors
        self._min_cohort = min_cohort
        self._colluders = colluders
        self._graph = graph
        self._dropout = dropout
        self._timeout = timeout
        self._poll = poll
        self._number = 0
        self._clients: dict[int, int] = {}  # node id → client id, of those who have said hello
        self._suite = suite
        self._kept = None if kept is None else Path(kept)
        self.blamed: dict[int, Blame] = (
            {} if self._kept is None else read_blamed(self._kept, roster, federation)
        )
        self.session: Session | None = None

    def open(
        self,
        content: RecordDict,
        spec: CountSpec,
        *,
        round: int,
        binding: bytes = b"",
        train_timeout: float = 3600.0,
        nodes: Iterable[int] | None = None,
        invite: Literal["roster", "asked"] | Collection[int] = "roster",
        closed: Watcher | None = None,
    ) -> SecureSumResult:
        """Send `content` to the clients, let them train, and open the sum of what they answer.

        Args:
            content: what the clients' function gets; it is the same for all, and its hash is in the session.
            spec: how many integers, and how large one may be.
            round: the application's round, from 1, see `prism_crypto.Session`; 0 if it does not number them.
            binding: what clients bind beside the run configuration, see `prism_secure.flower.secure_sum`.
            train_timeout: seconds that the clients may train.
            nodes: which nodes to ask; by default all.
            invite: ``"roster"``: all clients of the roster are invited, whoever is asked; those who are away
                have dropped out. ``"asked"``: those behind `nodes` are, a sample of any size that
                `min_survivors` and the clients' policies allow. Nodes that have not said yet whose they are
                do so first, by a signature; in semi-honest mode always, because nothing in it is signed. Ids
                of clients: these are, and those of `nodes` that are theirs are asked.
            closed: told of each stage that has ended and of the clients that are still in, before the next
                one begins. What it raises ends the session.

        Raises:
            ThresholdError: too few nodes are asked, or too few clients are left; nothing opens.
            ConfigError: a value in the run configuration is not one of Flower's types.
            SecureSumError: see `prism_crypto.errors`.
        """
        asked = list(self._grid.get_node_ids() if nodes is None else nodes)
        clients: dict[int, int] = {}
        everyone = frozenset(self._roster.ids if isinstance(invite, str) else invite)
        hellos = invite != "roster" or self._mode == Mode.SEMI_HONEST  # in which no advert is signed
        if hellos:
            least = max(3 if self._mode == Mode.ACTIVE else 2, self._min_survivors or 0)
            _check_number(len(asked), "nodes are asked", least)
            clients = self._introduced(asked, round)
            _check_number(len(clients), "nodes have said whose they are", least)
            if invite == "asked":
                everyone = frozenset(clients.values())
            clients = {node: client for node, client in clients.items() if client in everyone}
            asked = list(clients)
        self._number = max(self._number + 1, session_clock())
        session = self._planned(
            spec,
            sorted(everyone),
            round,
            model_hash=sum_messages.digest(content),
            binding=sum_messages.agreement(self._grid.run.run_id, self._run_config, binding),
        )
        self.session = session
        _check_number(len(asked), "nodes are asked", session.quorum)
        server = SecureSumServer(session, roster=self._roster)
        offer = sum_messages.offered(content, session.offer(), self._run_config)
        outbound: dict[int, RecordDict] = dict.fromkeys(asked, offer)
        places = {client: node for node, client in clients.items()}  # else by its signed advert
        try:
            while (stage := server.stage) is not None:
                wait = train_timeout if stage is Stage.UPLOAD else self._timeout
                for node, reply in self._exchange(stage, outbound, round, wait):
                    self._take(server, places, node, reply, hellos)
                inbox = server.close()
                if closed is not None:
                    closed(stage, tuple(sorted(inbox)) or server.result.survivors)
                outbound = {places[client]: sum_messages.packed(message) for client, message in inbox.items()}
        finally:
            for blame in server.blamed.values():
                log(WARNING, "secure sum: %s, and there is evidence", blame)
            for unproved in server.unproved.items():
                log(WARNING, "secure sum: evidence against client %d convicts nobody: %s", *unproved)
            self.blamed |= server.blamed
            if server.blamed and self._kept is not None:
                keep_blamed(self._kept, self.blamed.values())
        log(INFO, "secure sum: round %d is open, %d clients in it", round, len(server.result.survivors))
        return server.result

    def _introduced(self, nodes: list[int], round: int) -> dict[int, int]:
        """Node id → client id, of those of `nodes` that have said by a signature whose they are.

        A client that has come back on another node has two: the one that spoke last is its own.
        """
        challenges = {node: new_challenge() for node in nodes if node not in self._clients}
        contents = {node: sum_messages.packed(challenge) for node, challenge in challenges.items()}
        for node, reply in self._exchange(sum_messages.HELLO, contents, round, self._timeout):
            try:
                if reply.has_error():
                    log(WARNING, "secure sum, hello: node %d: %s", node, reply.error.reason)
                    continue
                client, signature = sum_messages.sender(reply.content), sum_messages.unpacked(reply.content)
                channel = sum_messages.channel(node)
                check_hello(self._roster, client, signature, self._federation, challenges[node], channel)
            except SecureSumError as error:
                log(WARNING, "secure sum, hello: the message of node %d is refused: %s", node, error)
                continue
            for before in [other for other, owner in self._clients.items() if owner == client]:
                del self._clients[before]
            self._clients[node] = client
        return {node: self._clients[node] for node in nodes if node in self._clients}

    def _planned(
        self,
        spec: CountSpec,
        invited: Iterable[int],
        round: int,
        *,
        model_hash: bytes,
        binding: bytes,
    ) -> Session:
        """The session, without as many of those who are to blame for something as can be left out."""
        everyone = tuple(invited)
        session = Session.plan(
            spec,
            everyone,
            federation=self._federation,
            number=self._number,
            round=round,
            mode=self._mode,
            threshold=self._threshold,
            min_survivors=self._min_survivors,
            min_cohort=self._min_cohort,
            colluders=self._colluders,
            graph=self._graph,
            dropout=self._dropout,
            roster=self._roster,
            suite=self._suite,
            excluded=self.blamed.values(),
            model_hash=model_hash,
            binding=binding,
        )
        needed = session.invited.count <= session.quorum
        for client in sorted(self.blamed.keys() & session.everyone):
            log(
                WARNING,
                "secure sum: client %d can't be left out, beside %d others: %s",
                client,
                len(session.excluded),
                f"{session.quorum} must survive (min_survivors, threshold), and no more are invited"
                if needed
                else "an offer holds no more evidence, or the graph can spare nobody else",
            )
        return session

    def _take(
        self, server: SecureSumServer, places: dict[int, int], node: int, reply: Message, hellos: bool
    ) -> None:
        """Hand one reply to the state machine; one that is refused is that of a silent client.

        A reply names its client, and nobody takes its word: it must come from that client's node. Which one
        that is a signature has said before, over a hello or, in active mode, the advert (which only the first
        reply brings, checked by `receive`). The node is not in the reply: it is the one that was asked.

        Args:
            places: client id → node id, as signed; without hellos an advert that is taken adds its own.
            hellos: whether nodes have said a hello: no other node is any client's then.
        """
        stage = server.stage
        assert stage is not None
        try:
            if reply.has_error():
                log(WARNING, "secure sum, %s: node %d: %s", stage.value, node, reply.error.reason)
                return
            client = sum_messages.sender(reply.content)
            if places.get(client, None if hellos else node) != node:
                log(WARNING, "secure sum, %s: node %d says that it is client %d", stage.value, node, client)
                self._clients.pop(node, None)  # it may have been enrolled anew, and is asked again
                return
            server.receive(client, sum_messages.unpacked(reply.content))
            places[client] = node
        except SecureSumError as error:
            log(WARNING, "secure sum, %s: the message of node %d is refused: %s", stage.value, node, error)

    def _exchange(
        self, stage: Stage | str, contents: Mapping[int, RecordDict], round: int, wait: float
    ) -> Iterator[tuple[int, Message]]:
        """Send each node its content; its reply as it comes, once; ends when all are there or time is up."""
        began = time.monotonic()
        kind = sum_messages.message_type(stage)
        nodes: dict[str, int] = {}
        for node, content in contents.items():
            message = Message(content, node, kind, ttl=wait, group_id=str(round))
            # One by one: a grid drops what it can't send, and the other ids would not say whose they are.
            nodes |= {name: node for name in self._grid.push_messages([message]) if name}
        while nodes:
            waited = time.monotonic() - began
            replies = list(self._grid.pull_messages(list(nodes)))
            for reply in replies:
                sender = nodes.pop(reply.metadata.reply_to_message_id, None)
                if sender is not None:
                    yield sender, reply
            if waited >= wait:  # that was the last look
                return
            if not replies:
                time.sleep(min(max(self._poll, min(waited / 10, _LONGEST_POLL)), wait - waited))


def _check_number(number: int, what: str, least: int) -> None:
    """Ask nobody where no sum could open."""
    if number < least:
        raise ThresholdError(f"{number} {what}, this session needs {least} clients", stage=Stage.ADVERTISE)
