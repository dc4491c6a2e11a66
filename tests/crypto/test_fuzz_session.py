"""The whole session as a game: hypothesis moves the messages, and what opens must be the exact sum.

Messages are lost, reordered, repeated, altered, truncated, swapped for messages of another session, and
stages are closed at any moment. Whatever happens, every party answers with the protocol's next message or
with a typed error, and an opened sum is that of the survivors.
"""

from __future__ import annotations

from typing import Any, get_args

import fuzz_decoders
import pytest
import reference as wire
from chosen import chosen_rehearsal
from forgery import take_apart
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rehearsal import HYBRID, SERVER, Rehearsal

from prism_crypto.errors import OutOfOrder, SecureSumError, ThresholdError
from prism_crypto.primitives.hybrid import available
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages.evidence import Evidence
from prism_crypto.wire.messages import Message, StopMessage

CLIENTS = st.integers(0, 4)


def rehearsed(mode: str, suite: str, **how: Any) -> Rehearsal:
    """Five clients of an active or a semi-honest session, or of an active one on a graph that they choose."""
    if mode == "chosen":
        return chosen_rehearsal(n=5, degree=4, threshold=3, lost=2, spec=CountSpec(25), suite=suite, **how)
    return Rehearsal(range(5), CountSpec(25), mode=mode, suite=suite, **how)


def foreign_messages(mode: str, suite: str) -> dict[tuple[Stage, int | None, int | None], bytes]:
    """All messages of another round of the same federation."""
    seen: dict[tuple[Stage, int | None, int | None], bytes] = {}
    other = rehearsed(mode, suite, round=99, label="other")
    other.play(intercept=lambda *message: seen.setdefault(message[:3], bytes(message[3])))
    return seen


MODES = ["active", "semi_honest", "chosen"]
SUITES = ["x25519", HYBRID] if available() else ["x25519"]
FOREIGN = {(mode, suite): foreign_messages(mode, suite) for mode in MODES for suite in SUITES}


def attempt(call, *arguments) -> tuple[Any, SecureSumError | None]:
    """What the call returns, or the typed error that it ends in."""
    try:
        return call(*arguments), None
    except SecureSumError as error:
        return None, error


class Session(RuleBasedStateMachine):
    """Five clients, a server, and a network that does what it likes."""

    @initialize(mode=st.sampled_from(MODES), suite=st.sampled_from(SUITES))
    def begin(self, mode: str, suite: str = "x25519") -> None:
        self.parties = rehearsed(mode, suite)
        self.foreign = FOREIGN[mode, suite]
        self.server, self.clients = self.parties.server, self.parties.clients
        self.mode = mode
        self.inbox: dict[int, bytes] = {}  # the server's last message to each client
        self.wire: list[tuple[int, bytes]] = []  # clients' messages on their way
        self.told: dict[int, set[Stage]] = {i: set() for i in self.clients}
        self.sent: dict[int, list[bytes]] = {i: [] for i in self.clients}
        self.shown: dict[int, list[tuple[set[int], set[int]]]] = {i: [] for i in self.clients}
        self.poisoned: set[int] = set()
        self.over = False

    # --- the clients

    @rule(i=CLIENTS)
    def step(self, i: int) -> None:
        """A client reads what the server sent it last, and answers."""
        self._ask(i, self.inbox.get(i, b""), genuine=True)

    @rule(i=CLIENTS, draw=st.randoms(use_true_random=False))
    def altered_to_client(self, i: int, draw) -> None:
        if i in self.inbox:
            message = fuzz_decoders.mutated(self.inbox[i], draw)
            self._ask(i, message, genuine=message == self.inbox[i])

    @rule(i=CLIENTS, source=CLIENTS, stage=st.sampled_from(list(Stage)))
    def foreign_to_client(self, i: int, source: int, stage: Stage) -> None:
        message = self.foreign.get((stage, SERVER, source))
        if message is not None and self.clients[i].stage is not Stage.ADVERTISE:
            assert self._ask(i, message, genuine=False) is None

    @rule(i=CLIENTS, other=CLIENTS)
    def somebody_elses_message_to_client(self, i: int, other: int) -> None:
        if i in self.inbox and other in self.inbox:
            self._ask(i, self.inbox[other], genuine=self.inbox[other] == self.inbox[i])

    @rule(i=CLIENTS)
    def resend(self, i: int) -> None:
        try:
            again = self.clients[i].resend()
        except OutOfOrder:
            return
        assert again == self.sent[i][-1]
        self.wire.append((i, again))

    def _ask(self, i: int, message: bytes, *, genuine: bool) -> bytes | None:
        client = self.clients[i]
        stage = client.stage
        if stage is None or (stage is Stage.ADVERTISE) != (not message):
            return None
        arguments: list = [message] if message else []
        if stage is Stage.UPLOAD:
            arguments.append(self.parties.values[i])
        reply, error = attempt(getattr(client, stage.value), *arguments)
        if error is not None:
            assert error.stage is stage
            assert client.stage is None
            return None
        assert stage not in self.told[i], "a client answered one stage twice"
        # An active client goes on without a share that does not open, and finds in the end: nobody signed it.
        # On a chosen graph a false voucher costs its supposed sender this client's help, and nothing else.
        harmless = stage in (Stage.UPLOAD, Stage.UNMASK) or (self.mode, stage) == ("chosen", Stage.CONFIRM)
        assert genuine or self.mode == "semi_honest" or harmless, "an altered message was accepted"
        self.told[i].add(stage)
        self.sent[i].append(reply)
        if stage is Stage.UNMASK:
            seeds, keys = (set(wire.read_records(blob, 32)) for blob in take_apart(reply)[2][:2])
            self.shown[i].append((seeds, keys))
        self.wire.append((i, reply))
        return reply

    # --- the network

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def deliver(self, data) -> None:
        sender, message = self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))
        self._give(sender, message)

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def duplicate(self, data) -> None:
        sender, message = data.draw(st.sampled_from(self.wire))
        self._give(sender, message)
        self._give(sender, message)

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def lose(self, data) -> None:
        self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), draw=st.randoms(use_true_random=False))
    def altered_to_server(self, data, draw) -> None:
        sender, message = self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))
        changed = fuzz_decoders.mutated(message, draw)
        stage = self.server.stage
        if self._give(sender, changed) and changed != message and stage is Stage.UPLOAD:
            assert self.mode == "semi_honest", "an altered upload was accepted"
            self.poisoned.add(sender)  # words are words

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), claimed=CLIENTS)
    def from_another_sender(self, data, claimed: int) -> None:
        sender, message = data.draw(st.sampled_from(self.wire))
        stage = self.server.stage
        if self._give(claimed, message) and claimed != sender and stage is Stage.UPLOAD:
            assert self.mode == "semi_honest", "an upload was accepted from somebody else"
            self.poisoned.add(claimed)

    @rule(source=CLIENTS, sender=CLIENTS, stage=st.sampled_from(list(Stage)))
    def foreign_to_server(self, source: int, sender: int, stage: Stage) -> None:
        message = self.foreign.get((stage, source, SERVER))
        if message is not None:
            assert not self._give(sender, message), "a message of another session was accepted"

    def _give(self, sender: int, message: bytes) -> bool:
        stage = self.server.stage
        _, error = attempt(self.server.receive, sender, message)
        assert error is None or (error.stage, error.peer) == (stage, sender)
        return error is None

    # --- the server

    @rule()
    def close(self) -> None:
        if self.over or len(self.server.waiting) > 2:
            return  # closing too early is tried at the end
        self._close()

    def _close(self) -> None:
        stage = self.server.stage
        outbound, error = attempt(self.server.close)
        if error is not None:
            assert stage is None or error.stage is stage
            self.over = True
            return
        self.inbox = dict(outbound)
        self.over = self.server.stage is None

    @invariant()
    def nobody_ever_gave_both_shares_of_anybody(self) -> None:
        views = [view for given in getattr(self, "shown", {}).values() for view in given]
        for seeds, keys in views:
            assert not seeds & keys
        if self.mode != "semi_honest":
            sets = [(seeds, keys) for seeds, keys in views]
            for seeds, keys in sets:  # one that holds no share of somebody gives fewer
                assert not any(seeds & others or keys & those for those, others in sets)
            assert not self.server.blamed, (
                "somebody is blamed who has done nothing but speak through a bad line"
            )

    def teardown(self) -> None:
        """Let the rest of the session run, and look at what came out."""
        if not hasattr(self, "server"):
            return
        for _ in Stage:
            if self.server.stage is None:
                break
            for i in self.clients:
                if i in self.server.waiting:
                    self._ask(i, self.inbox.get(i, b""), genuine=True)
            for sender, message in self.wire:
                self._give(sender, message)
            self.wire.clear()
            self._close()
        try:
            result = self.server.result
        except OutOfOrder:
            return
        assert len(result.survivors) >= self.parties.session.quorum
        if not self.poisoned & set(result.survivors):
            assert result.counts.tolist() == self.parties.expected(result.survivors)


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Session,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_session_under_a_hostile_network_opens_the_exact_sum_or_nothing():
    play(examples=30, steps=40)


@pytest.mark.slow
def test_many_sessions_under_a_hostile_network():
    play(examples=1000, steps=60)


def test_mutated_messages_end_in_typed_errors_in_every_decoder():
    ends = fuzz_decoders.by_mutation(5000)
    assert sum(ends.values()) == 5000
    assert {"MessageError", "ContextMismatch", "SumError", "ShareError", "accepted"} <= set(ends)


def test_every_message_and_every_kind_of_evidence_is_among_what_is_mutated():
    kinds = set(Message.__subclasses__())
    assert len(fuzz_decoders.KINDS) == len(kinds) == len({kind.__struct_config__.tag for kind in kinds})
    assert set(fuzz_decoders.KINDS) == kinds
    if not available():
        kinds -= {StopMessage}
    real: dict[str, set[int]] = {}
    for name, _, starts in fuzz_decoders.targets():
        where = name.rpartition(": ")[2] if ": " in name else name.partition(",")[0]
        real.setdefault(where, set()).update(start[1] for start in starts if len(start) > 1)
    for kind in kinds - {StopMessage}:
        assert kind.__struct_config__.tag in real[kind.__name__], f"no real {kind.__name__} to start from"
    assert (StopMessage in kinds) == ("server, stop" in real)
    assert real["evidence"] == {kind.__struct_config__.tag for kind in get_args(Evidence)}


def test_the_game_can_be_won():
    """Undisturbed, the same machine opens the sum: the assertions above are reached."""
    for mode in ("active", "chosen"):
        game = Session()
        game.begin(mode)
        game.teardown()
        assert game.server.result.survivors == (0, 1, 2, 3, 4)
    game = Session()
    game.begin("semi_honest")
    game.step(0)
    game.teardown()
    assert game.server.result.counts.tolist() == game.parties.expected((0, 1, 2, 3, 4))


def test_too_few_messages_end_the_game_without_a_sum():
    game = Session()
    game.begin("active")
    with pytest.raises(ThresholdError):
        game.server.close()
