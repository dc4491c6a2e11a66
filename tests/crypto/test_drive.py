"""Request and response: exact sums whatever is lost, late, killed or lied about, and no clock inside."""

from __future__ import annotations

import contextlib
import itertools
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rehearsal import HYBRID, needs_kem

from prism_crypto import (
    CountSpec,
    Identity,
    IdentityError,
    InputError,
    MessageError,
    OutOfOrder,
    Policy,
    PolicyError,
    Roster,
    SecureSumError,
    Session,
    SignatureError,
    Stage,
    StateError,
    ThresholdError,
)
from prism_crypto.drive import Admission, Client, Server, enrol
from prism_crypto.hello import say_hello
from prism_crypto.primitives.keys import SealingKeyPair
from prism_crypto.stages.states import Shared
from prism_crypto.wire import messages

N, SPEC = 5, CountSpec(30, bound=9)


def vector(client: int) -> np.ndarray:
    return np.random.default_rng(client).integers(0, 10, SPEC.dimension)


class Federation:
    """Five enrolled clients, and sessions whose numbers rise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        identities = [Identity.generate(client) for client in range(N)]
        self.roster = Roster({each.client_id: each.public_key for each in identities})
        for each in identities:
            enrol(root / str(each.client_id), each, self.roster, Policy(min_survivors=3), "tests")
        self.numbers = itertools.count(1)
        self.clients = [Client(root / str(client)) for client in range(N)]

    def server(self, round: int, spec: CountSpec = SPEC, federation: str = "tests", **options) -> Server:
        session = Session.plan(
            spec, range(N), federation=federation, number=next(self.numbers), round=round,
            roster=self.roster, threshold=3, min_survivors=3, suite=options.pop("suite", "x25519"),
        )  # fmt: skip
        return Server(session, options.pop("deadlines", 10.0), roster=self.roster, **options)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


class Network:
    """Carries requests and responses one second apart, and keeps what each client's error was."""

    def __init__(self, federation: Federation, server: Server, round: int, clients=range(N)) -> None:
        self.server, self.federation, self.now = server, federation, 0.0
        self.requests = {i: federation.clients[i].join(SPEC, vector(i), round=round) for i in clients}
        self.sent: list[tuple[int, bytes]] = []
        self.errors: dict[int, SecureSumError] = {}

    def carry(self, client: int, request: bytes) -> bytes | None:
        """The response; a test's own network loses or changes some."""
        return self.server.handle(client, request, self.now)

    def run(self, turns: int = 200) -> Server:
        for _ in range(turns):
            self.now += 1.0
            self.server.tick(self.now)
            for client, request in list(self.requests.items()):
                self.sent.append((client, request))
                response = self.carry(client, request)
                if response is None:
                    continue
                try:
                    following = self.federation.clients[client].handle(response)
                except SecureSumError as error:
                    self.errors[client], following = error, None
                self.requests[client] = following
                if following is None:
                    del self.requests[client]
            if not self.requests and self.server.stage is None:
                return self.server
        raise AssertionError(f"no end: {self.server.stage}, {self.requests.keys()}")


def check(server: Server, survivors: tuple[int, ...]) -> None:
    assert server.result.survivors == survivors
    assert server.result.counts.tolist() == np.sum([vector(i) for i in survivors], axis=0).tolist()


def test_the_sum_is_exact_and_every_client_hears_it(federation: Federation):
    for round in (1, 2):
        network = Network(federation, federation.server(round, deadlines=100.0), round)
        check(network.run(), tuple(range(N)))
        assert not network.errors
        assert network.now < 100.0, "nobody waits for a deadline where all answer"
        for client in federation.clients:
            counts, parties = client.result
            assert (counts.tolist(), parties) == (network.server.result.counts.tolist(), N)


@needs_kem
def test_a_hybrid_session_is_driven_as_any_other(federation: Federation):
    network = Network(federation, federation.server(1, suite=HYBRID), 1)
    check(network.run(), tuple(range(N)))
    assert not network.errors
    for client in federation.clients:
        assert client.result[0].tolist() == network.server.result.counts.tolist()


@needs_kem
@pytest.mark.parametrize("signed", [True, False])
def test_a_client_that_stops_or_leaves_may_have_its_vector_in_the_next_session(
    federation: Federation, signed: bool
):
    """Client 4 has dealt client 2 another part than it signed, or something on the way has altered that."""
    server = federation.server(1, suite=HYBRID)
    network, dealer = Network(federation, server, 1), []

    def carry(client: int, request: bytes) -> bytes | None:
        state = getattr(federation.clients[4]._party, "_state", None)
        if isinstance(state, Shared) and not dealer:
            dealer.extend((state.context, bytes(state.sealing._seed.reveal())))
        response = server.handle(client, request, network.now)
        share_message = len(response) > 8_000 and response[1] == Stage.SHARE.number and response[0] != 2
        if client != 2 or not share_message or server.stage is not Stage.UPLOAD:
            return response
        altered = bytearray(response)
        altered[-65] ^= 1  # the hash of the last dealer's part
        if signed:
            context, seed = dealer
            body = messages.record_body(context, (4, 2), altered[-server.session.dealt_bytes : -64])
            altered[-64:] = SealingKeyPair(seed).sign(messages.RECORD, body)
        return bytes(altered)

    network.carry = carry
    check(network.run(), (0, 1, 3, 4))
    assert network.errors[2].peer is None  # what a client hears about itself is no word about anybody
    if signed:
        assert "goes on without this client" in str(network.errors[2])
        assert "stops" in str(server.refused[2])
    else:
        assert "something on the way may have altered what it is under" in str(network.errors[2])
        assert not server.refused
    assert not server.blamed
    server = federation.server(1, suite=HYBRID)
    again = Network(federation, server, 1, clients=[2])
    assert again.requests[2] is not None
    for _ in range(3):
        again.now += 1.0
        response = server.handle(2, again.requests[2], again.now)
        again.requests[2] = federation.clients[2].handle(response)
    assert 2 not in server._party.waiting  # it has advertised


@pytest.mark.parametrize("seed", range(6))
def test_lost_requests_and_responses_are_made_up_for_by_the_same_bytes(federation: Federation, seed: int):
    draws = np.random.default_rng(seed)
    server = federation.server(1, deadlines=1000.0)
    network = Network(federation, server, 1)

    def carry(client: int, request: bytes) -> bytes | None:
        if draws.random() < 0.4:  # on the way there
            return None
        response = server.handle(client, request, network.now)
        if draws.random() < 0.3:  # one that is brought twice
            response = server.handle(client, request, network.now)
        return None if draws.random() < 0.4 else response

    network.carry = carry
    check(network.run(), tuple(range(N)))
    messages = {(client, request) for client, request in network.sent if request[0] == 2}
    assert len(messages) == 5 * N, "one message a client and stage, however often it was sent"


def test_what_a_server_did_not_get_it_asks_for_again(federation: Federation):
    """A client that polls, though its message never came, sends the very same one."""
    server = federation.server(1)
    client, seen = federation.clients[0], []
    offer = server.handle(0, client.join(SPEC, vector(0), round=1), 0.0)
    advert = client.handle(offer)
    poll = bytes([3]) + advert[1:10]
    again = server.handle(0, poll, 1.0)
    assert client.handle(again) == advert
    seen.append(server.handle(0, advert, 2.0))
    assert client.handle(seen[-1]) == poll
    assert client.waiting


@pytest.mark.parametrize("stage", list(Stage))
def test_a_client_that_is_late_is_out_and_hears_it_and_is_back_in_the_next_session(
    federation: Federation, stage: Stage
):
    server = federation.server(1, deadlines={**dict.fromkeys(Stage, 20.0), stage: 5.0})
    network = Network(federation, server, 1)
    late = bytes([2, stage.number])

    def carry(client: int, request: bytes) -> bytes | None:
        if client == 2 and request[:2] == late and server.stage is stage:
            return None
        return server.handle(client, request, network.now)

    network.carry = carry
    in_it = stage in (Stage.CONFIRM, Stage.UNMASK)
    check(network.run(), (0, 1, 2, 3, 4) if in_it else (0, 1, 3, 4))
    assert server.silent[stage] == (2,)
    if stage is Stage.UNMASK:  # the sum is open, and its own vector is in it
        assert federation.clients[2].result[1] == N
    else:
        assert f"{stage.value} is over" in str(network.errors[2])
    check(Network(federation, federation.server(2), 2).run(), tuple(range(N)))


@pytest.mark.parametrize("stage", list(Stage))
def test_a_client_that_was_killed_is_left_behind_and_a_new_process_joins_the_next_session(
    federation: Federation, stage: Stage
):
    server = federation.server(1, deadlines=4.0)
    network = Network(federation, server, 1)

    def carry(client: int, request: bytes) -> bytes | None:
        if client == 4 and request[:2] == bytes([2, stage.number]):
            del network.requests[4]
            return None
        return server.handle(client, request, network.now)

    network.carry = carry
    network.run()
    assert 4 in server.silent[stage]
    check(server, (0, 1, 2, 3, 4) if stage in (Stage.CONFIRM, Stage.UNMASK) else (0, 1, 2, 3))
    federation.clients[4] = Client(federation.root / "4")
    check(Network(federation, federation.server(2), 2).run(), tuple(range(N)))


def test_a_process_that_begins_again_does_not_advertise_twice_in_one_session(federation: Federation):
    server = federation.server(1)
    join = federation.clients[0].join(SPEC, vector(0), round=1)
    offer = server.handle(0, join, 0.0)
    federation.clients[0].handle(offer)
    again = Client(federation.root / "0")
    again.join(SPEC, vector(0), round=1)
    with pytest.raises(StateError):
        again.handle(offer)


def test_a_vector_is_in_no_second_session_of_its_round(federation: Federation):
    Network(federation, federation.server(1), 1).run()
    network = Network(federation, federation.server(1, deadlines=3.0), 1)
    with pytest.raises(ThresholdError):
        _ = network.run().result
    assert all(isinstance(error, StateError) for error in network.errors.values())
    assert len(network.errors) == N


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD, Stage.CONFIRM, Stage.UNMASK])
def test_bytes_that_are_no_message_are_refused_by_name_and_cost_nobody_else_the_sum(
    federation: Federation, stage: Stage
):
    server = federation.server(1, deadlines=10.0)
    network = Network(federation, server, 1)

    def carry(client: int, request: bytes) -> bytes | None:
        if client == 1 and request[:2] == bytes([2, stage.number]):
            request = request[:10] + b"\x93 not what this stage expects"
        return server.handle(client, request, network.now)

    network.carry = carry
    network.run()
    check(server, (0, 1, 2, 3, 4) if stage in (Stage.CONFIRM, Stage.UNMASK) else (0, 2, 3, 4))
    assert isinstance(server.refused[1], SecureSumError)
    assert (server.refused[1].peer, server.refused[1].stage) == (1, stage)
    assert "its message was refused" in str(network.errors[1])
    assert set(server.refused) == {1}


STAGES = [Stage.ADVERTISE, Stage.SHARE, Stage.UPLOAD, Stage.CONFIRM, Stage.UNMASK]


@pytest.mark.parametrize("place", [12, 40, -1])
@pytest.mark.parametrize("stage", STAGES)
def test_a_byte_altered_on_the_way_to_the_server_costs_nobody_the_sum(
    federation: Federation, stage: Stage, place: int
):
    server, spoiled = federation.server(1), []
    network = Network(federation, server, 1)

    def carry(client: int, request: bytes) -> bytes | None:
        if client == 1 and request[:2] == bytes([2, stage.number]) and len(spoiled) < 2:
            spoiled.append(request)
            altered = bytearray(request)
            altered[place] ^= 1
            request = bytes(altered)
        return server.handle(client, request, network.now)

    network.carry = carry
    check(network.run(), tuple(range(N)))
    assert len(spoiled) == 2
    assert not network.errors
    assert not server.refused


def test_who_is_refused_again_and_again_is_told_so_before_the_stage_ends(federation: Federation):
    server = federation.server(1)
    client = federation.clients[1]
    request = client.handle(server.handle(1, client.join(SPEC, vector(1), round=1), 0.0))
    for _ in range(2):
        assert client.handle(server.handle(1, request[:-1] + bytes([request[-1] ^ 1]), 0.0)) == request
    with pytest.raises(OutOfOrder, match="its message was refused"):
        client.handle(server.handle(1, request[:-1] + bytes([request[-1] ^ 1]), 0.0))


def test_a_message_in_anothers_name_is_refused_and_does_not_shut_the_other_out(federation: Federation):
    """Of a transport that believes what it is told: the signature does not verify."""
    server = federation.server(1)
    offer = server.handle(1, federation.clients[1].join(SPEC, vector(1), round=1), 0.0)
    advert = federation.clients[1].handle(offer)
    for left in (2, 1, 0):
        assert (b"its message was refused" in server.handle(0, advert, 0.0)) is (left == 0)
        assert isinstance(server.refused[0], SignatureError)
    network = Network(federation, server, 1, clients=(0, 2, 3, 4))
    network.requests[1] = advert
    check(network.run(), tuple(range(N)))
    assert not server.refused


def test_too_few_clients_are_an_error_for_all(federation: Federation):
    server = federation.server(1, deadlines=3.0)
    network = Network(federation, server, 1, clients=(0, 1))
    network.run()
    assert isinstance(server.error, ThresholdError)
    with pytest.raises(ThresholdError):
        _ = server.result
    assert all("2 of 5 clients advertised" in str(error) for error in network.errors.values())
    assert server.due is None


@pytest.mark.parametrize(
    "other",
    [
        {"round": 2},
        {"round": 0},
        {"spec": CountSpec(30, bound=8)},
        {"spec": CountSpec(31, bound=9)},
        {"spec": CountSpec.of_parts([(20, 9), (10, 1)])},
        {"federation": "others"},
    ],
)
def test_a_client_adds_to_no_other_sum_than_it_wants(federation: Federation, other: dict):
    server = federation.server(**{"round": 1} | other)
    client = federation.clients[0]
    with pytest.raises(PolicyError, match="this client wants") as offered:
        client.handle(server.handle(0, client.join(SPEC, vector(0), round=1), 0.0))
    with pytest.raises(OutOfOrder, match="join comes first") as late:
        client.handle(b"")
    assert offered.value.peer is late.value.peer is None  # a server brings about both


def test_clients_of_other_models_are_in_no_sum_together(federation: Federation):
    session = Session.plan(
        SPEC, range(N), federation="tests", number=next(federation.numbers), round=1,
        roster=federation.roster, threshold=3, min_survivors=3, model_hash=b"a", binding=b"x",
    )  # fmt: skip
    server = Server(session, 3.0, roster=federation.roster)
    network = Network(federation, server, 1)
    for client, seen in enumerate([(b"a", b"x"), (b"b", b"x"), (b"a", b"x"), (b"a", b""), (b"a", b"x")]):
        network.requests[client] = federation.clients[client].join(
            SPEC, vector(client), round=1, model_hash=seen[0], binding=seen[1]
        )
    check(network.run(), (0, 2, 4))


def test_a_vector_is_made_when_it_is_time_to_upload_and_a_bad_one_is_the_clients_own_error(
    federation: Federation,
):
    server, made = federation.server(1, deadlines=3.0), []
    network = Network(federation, server, 1)

    def make():
        made.append(server.stage)
        return vector(0)

    network.requests[0] = federation.clients[0].join(SPEC, make, round=1)
    network.requests[1] = federation.clients[1].join(SPEC, vector(1) + 9, round=1)
    check(network.run(), (0, 2, 3, 4))
    assert made == [Stage.UPLOAD]
    assert isinstance(network.errors[1], InputError)


def test_time_is_what_the_caller_says(federation: Federation):
    server = federation.server(1, deadlines={stage: 10.0 * stage.number for stage in Stage})
    assert server.due is None
    join = federation.clients[0].join(SPEC, vector(0), round=1)
    server.handle(0, join, 1000.0)
    assert server.due == 1010.0
    server.tick(1009.9)
    assert server.stage is Stage.ADVERTISE
    server.tick(1010.0)
    assert isinstance(server.error, ThresholdError)
    assert server.silent[Stage.ADVERTISE] == tuple(range(N))


@pytest.mark.parametrize("deadlines", [0, -1.0, {Stage.SHARE: 1.0}, dict.fromkeys(Stage, 0.0), "1", None])
def test_deadlines_that_are_none_are_refused(federation: Federation, deadlines):
    with pytest.raises(InputError, match="seconds above 0 for each stage"):
        federation.server(1, deadlines=deadlines)


def test_a_client_that_joins_too_late_waits_for_the_next_session(federation: Federation):
    server = federation.server(1, deadlines=3.0)
    Network(federation, server, 1, clients=(0, 1, 2)).run()
    late = federation.clients[3]
    request = late.join(SPEC, vector(3), round=2)
    assert late.handle(server.handle(3, request, 50.0)) == request
    assert late.waiting


@given(data=st.binary(max_size=40), kind=st.integers(0, 255), stage=st.integers(0, 9))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_frames_are_errors_of_the_family(federation: Federation, data: bytes, kind: int, stage: int):
    server = federation.server(1)
    for frame in (data, bytes([kind, stage]) + server.session.number.to_bytes(8) + data):
        with contextlib.suppress(SecureSumError):
            server.handle(0, frame, 0.0)
        client = federation.clients[0]
        client.join(SPEC, vector(0), round=1)
        with contextlib.suppress(SecureSumError):
            client.handle(frame)


@pytest.mark.parametrize("data", [b"", bytes(9), bytes([2, 6]) + bytes(8), bytes([9, 1]) + bytes(8)])
def test_what_no_client_has_written_is_a_message_error(federation: Federation, data: bytes):
    with pytest.raises(MessageError):
        federation.server(1).handle(0, data, 0.0)


def test_a_folder_is_written_once_and_read_whole(federation: Federation, tmp_path: Path):
    identity = Identity.generate(0)
    roster = Roster({0: identity.public_key})
    with pytest.raises(IdentityError, match="can't be made"):
        enrol(tmp_path / "0", identity, roster, Policy(min_survivors=3), "tests")
    with pytest.raises(IdentityError, match="does not pin"):
        enrol(tmp_path / "new", identity, federation.roster, Policy(min_survivors=3), "tests")
    for name, error in (
        ("identity.json", IdentityError),
        ("roster.json", IdentityError),
        ("policy.json", IdentityError),
        ("federation.txt", IdentityError),
        ("sessions", StateError),
    ):
        kept = (tmp_path / "1" / name).rename(tmp_path / "kept")
        with pytest.raises(error):
            Client(tmp_path / "1")
        kept.rename(tmp_path / "1" / name)
    assert Client(tmp_path / "1").client_id == 1


CLOCK = 1_800_000_000_000
"""Milliseconds, as a clock has them."""


@pytest.mark.parametrize(("number", "round"), [(CLOCK, 1), (CLOCK + 2**33 - 1, 1), (CLOCK, 70_001)])
def test_a_client_joins_a_federation_that_numbers_by_the_clock_and_is_not_new(tmp_path, number, round):
    identities = [Identity.generate(client) for client in range(3)]
    roster = Roster({each.client_id: each.public_key for each in identities})
    for each in identities:
        folder = tmp_path / str(each.client_id)
        enrol(
            folder, each, roster, Policy(min_survivors=3), "tests", number=CLOCK - 1, round=max(round - 9, 0)
        )
    session = Session.plan(SPEC, range(3), federation="tests", number=number, round=round, roster=roster)
    server, clients = Server(session, 10.0, roster=roster), [Client(tmp_path / str(i)) for i in range(3)]
    requests = {i: clients[i].join(SPEC, vector(i), round=round) for i in range(3)}
    while requests:
        for i, request in list(requests.items()):
            following = clients[i].handle(server.handle(i, request, 0.0))
            requests = (
                requests | {i: following} if following else {j: requests[j] for j in requests if j != i}
            )
    assert np.array_equal(server.result.counts, sum(vector(i) for i in range(3)))


@pytest.mark.parametrize("start", [{"number": -1}, {"number": 2**64}, {"round": -1}])
def test_numbers_from_which_no_counter_starts_leave_no_folder_behind(federation: Federation, start, tmp_path):
    identity = Identity.load(tmp_path / "0" / "identity.json")
    with pytest.raises(StateError, match="session and round are in"):
        enrol(tmp_path / "new", identity, federation.roster, Policy(min_survivors=3), "tests", **start)
    assert not (tmp_path / "new").exists()


def test_parties_are_not_pickled_and_do_not_show_their_keys(federation: Federation):
    for each in (federation.clients[0], federation.server(1)):
        assert repr(each) == f"<{type(each).__name__}>"
        with pytest.raises(TypeError):
            pickle.dumps(each)


def test_a_message_that_was_damaged_on_the_way_is_asked_for_again(federation: Federation):
    server = federation.server(1)
    network = Network(federation, server, 1)
    damaged: dict[tuple[int, int], int] = {}

    def carry(client: int, request: bytes) -> bytes | None:
        if request[0] == 2 and damaged.setdefault((client, request[1]), 0) < client % 3:
            damaged[client, request[1]] += 1
            request = request[:-1] + bytes([request[-1] ^ 1])
        return server.handle(client, request, network.now)

    network.carry = carry
    check(network.run(), tuple(range(N)))
    assert sum(damaged.values()) >= N
    assert not server.refused


def gone(federation: Federation, server: Server) -> bytes:
    """What client 0 hears of a session whose first stage is over."""
    late = federation.clients[0].handle(
        server.handle(0, federation.clients[0].join(SPEC, vector(0), round=1), 0.0)
    )
    return server.handle(0, late, 99.0)


@pytest.mark.parametrize("stage", [None, *list(Stage)[:-1]])
def test_the_end_of_another_session_is_not_that_of_this_one(federation: Federation, stage: Stage | None):
    """A response that was held up on its way: of the session before, heard while joining or in any stage."""
    old = gone(federation, federation.server(1, deadlines=5.0))
    assert old[0] == 21
    server = federation.server(2)
    network = Network(federation, server, 2)
    heard = []

    def carry(client: int, request: bytes) -> bytes | None:
        at = None if request[0] == 1 else list(Stage)[request[1] - 1]
        if client == 0 and at is stage and not heard:
            server.handle(client, request, network.now)
            heard.append(old)
            return old
        return server.handle(client, request, network.now)

    network.carry = carry
    check(network.run(), tuple(range(N)))
    assert heard
    assert not network.errors


def test_a_client_of_a_session_that_the_server_has_left_hears_so(federation: Federation):
    client = federation.clients[0]
    advert = client.handle(federation.server(1).handle(0, client.join(SPEC, vector(0), round=1), 0.0))
    with pytest.raises(OutOfOrder, match="the session is number 2, not 1"):
        client.handle(federation.server(2).handle(0, advert, 0.0))


def test_who_has_broken_the_protocol_is_named_and_can_be_left_out(federation: Federation):
    server = federation.server(1, deadlines=4.0)
    network = Network(federation, server, 1)

    def carry(client: int, request: bytes) -> bytes | None:
        if client == 2 and request[:2] == bytes([2, Stage.SHARE.number]):
            state = federation.clients[2]._party._state
            message = msgspec.msgpack.decode(request[10:], type=messages.ShareMessage)
            records = messages.decode_records(message.sealed, messages.SEALED_BYTES, stage=Stage.SHARE)
            records[0] = bytes(len(records[0]))
            sealed = messages.encode_records(records)
            body = messages.share_body(state.context, 2, sealed)
            signature = state.sealing.sign(messages.DEALING, body)
            lie = msgspec.structs.replace(message, sealed=sealed, signature=signature)
            request = request[:10] + messages.encode(lie)
        return server.handle(client, request, network.now)

    network.carry = carry
    network.run()
    assert set(server.blamed) == {2}
    session = Session.plan(
        SPEC, range(N), federation="tests", number=99, round=2, roster=federation.roster, threshold=3,
        min_survivors=3, excluded=server.blamed.values(),
    )  # fmt: skip
    assert session.invited.ids == (0, 1, 3, 4)


@pytest.mark.parametrize("peer", [N, 77])
@pytest.mark.parametrize("stage", list(Stage))
def test_who_is_not_invited_hears_no_sum(federation: Federation, peer: int, stage: Stage):
    server = federation.server(1)
    check(Network(federation, server, 1).run(), tuple(range(N)))
    for kind in (2, 3):
        answer = server.handle(peer, bytes([kind, stage.number]) + server.session.number.to_bytes(8), 99.0)
        assert answer[0] == 21
        assert b"not among the invited" in answer


def test_who_has_no_key_shuts_no_client_out(federation: Federation):
    door = Admission(federation.roster, "tests", "https://here")
    for client in (0, 1, 4):
        identity = federation.clients[client].identity
        challenge = door.challenge(client)
        for _ in range(100):  # a stranger
            door.challenge(client)
            with pytest.raises(SignatureError):
                door.token(client, bytes(64))
        hello = say_hello(identity, "tests", challenge, "https://here")
        assert door.owner(door.token(client, hello)) == client
        with pytest.raises(IdentityError, match="no challenge is open"):
            door.token(client, hello)
        door.challenge(client)
        with pytest.raises(SignatureError):  # it answers no other
            door.token(client, hello)
    with pytest.raises(IdentityError, match="no token"):
        door.owner(None)


@pytest.mark.parametrize("name", ["", "federation.txt", "roster.json", "policy.json", "identity.json"])
def test_what_others_may_write_is_refused(federation: Federation, name: str):
    for mode in (0o020, 0o002):
        path = federation.root / "1" / name
        kept = path.stat().st_mode
        path.chmod(kept | mode)
        with pytest.raises(IdentityError, match="others"):
            Client(federation.root / "1")
        path.chmod(kept)
    assert Client(federation.root / "1").client_id == 1


def test_a_federation_name_in_a_link_is_refused(federation: Federation):
    path = federation.root / "1" / "federation.txt"
    path.rename(federation.root / "elsewhere")
    path.symlink_to(federation.root / "elsewhere")
    with pytest.raises(IdentityError):
        Client(federation.root / "1")


@pytest.mark.parametrize("name", ["", " tests", "tests ", "a\nb", "Klinik München", "x" * 257])
def test_a_name_that_is_none_leaves_no_folder(federation: Federation, tmp_path: Path, name: str):
    with pytest.raises(IdentityError, match="federation's name"):
        enrol(
            tmp_path / "new", federation.clients[0].identity, federation.roster, Policy(min_survivors=3), name
        )
    assert not (tmp_path / "new").exists()


def test_a_token_is_for_the_client_that_signed_the_last_challenge_on_this_channel(federation: Federation):
    door = Admission(federation.roster, "tests", "https://here")
    keys = [client.identity for client in federation.clients]
    challenge = door.challenge(1)
    token = door.token(1, say_hello(keys[1], "tests", challenge, "https://here"))
    assert door.owner(token) == 1
    with pytest.raises(IdentityError):  # used up
        door.token(1, say_hello(keys[1], "tests", challenge, "https://here"))
    for client, key, federation_name, channel in (
        (1, keys[0], "tests", "https://here"),
        (0, keys[1], "tests", "https://here"),
        (1, keys[1], "other", "https://here"),
        (1, keys[1], "tests", "https://there"),
    ):
        challenge = door.challenge(client)
        with pytest.raises(SignatureError):
            door.token(client, say_hello(key, federation_name, challenge, channel))
    for odd in ("", "x", token[:-1], token.upper() + "é"):
        with pytest.raises(IdentityError):
            door.owner(odd)
    with pytest.raises(IdentityError):
        door.challenge(99)
    second = door.token(1, say_hello(keys[1], "tests", door.challenge(1), "https://here"))
    assert door.owner(second) == 1
    with pytest.raises(IdentityError):
        door.owner(token)
