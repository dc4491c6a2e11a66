"""Fuzz everything that reads bytes from outside: ``python tests/crypto/fuzz_decoders.py -runs=1000000``.

With atheris (``pip install atheris``) this is a coverage-guided libFuzzer target and takes libFuzzer's
options. Without it the same targets run on random mutations of real messages, and ``-runs`` and ``-seed`` are
known. An input is a target's number and the bytes for it. Nothing but a `SecureSumError` may come out, and
what a decoder accepts must encode to the very same bytes.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "crypto"))
sys.path.insert(0, str(Path(__file__).parent))

import msgspec
import numpy as np
from attacks.test_false_vouchers import FalseVouchers
from chosen import chosen_rehearsal, rehearsed
from rehearsal import HYBRID, SERVER, Rehearsal, stages, untouched

from prism_crypto import session
from prism_crypto.errors import SecureSumError
from prism_crypto.policy import Policy
from prism_crypto.primitives import hybrid, shamir
from prism_crypto.primitives.agreement_proof import PROOF_BYTES
from prism_crypto.primitives.context import advert_digest, context1, sighting, tag, u32, view_digest
from prism_crypto.primitives.hybrid import available
from prism_crypto.primitives.keys import SealingKeyPair
from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage
from prism_crypto.stages import confirm, evidence, share, unmask, upload, vouch
from prism_crypto.stages.advert import Advert, check_advert
from prism_crypto.stages.survivors import read_survivors
from prism_crypto.wire import messages

Target = tuple[str, Callable[[bytes], Any], list[bytes]]
"""A name, what reads the bytes, and real messages to start from."""

KINDS = [
    messages.AdvertMessage,
    messages.ShareMessage,
    messages.UploadMessage,
    messages.ConfirmMessage,
    messages.UnmaskMessage,
    messages.VouchedUploadMessage,
    messages.VouchedConfirmMessage,
    messages.StopMessage,
    messages.DoubtedUnmaskMessage,
    messages.AdvertsMessage,
    messages.SharesMessage,
    messages.SurvivorsMessage,
    messages.ConfirmationsMessage,
    messages.OpenedMessage,
    messages.VouchedSurvivorsMessage,
    messages.VouchedConfirmationsMessage,
    messages.DoubtedConfirmationsMessage,
]


def targets() -> list[Target]:
    """Every decoder, behind the state of a real session in which it is used."""
    found: list[Target] = []
    for mode, fields in (
        ("active", {}),
        ("semi_honest", {}),
        ("semi_honest", {"graph": "harary", "dropout": 0.0}),
        ("chosen", {}),
        ("chosen", {"doubts": 1}),
        *([(mode, {"suite": HYBRID}) for mode in ("active", "chosen")] if available() else []),
    ):
        name = " ".join((mode, *(f"{field}={value}" for field, value in fields.items())))
        found += _of_a_session(name, mode, **fields)
    for suite in ["x25519", HYBRID] if available() else ["x25519"]:
        how = {"suite": suite, "policy": Policy(min_survivors=7), "min_survivors": 7}
        for room in (Rehearsal(range(10), **how), chosen_rehearsal(14, suite=suite)):
            found += _of_evidence(room)
    return found


def _of_evidence(room: Rehearsal) -> list[Target]:
    """Evidence of every kind against one client, and the same with other sizes of the session."""
    liar, real = 3, []
    pair, commitment = SealingKeyPair(bytes(range(32))), bytes(32)
    choice = tuple(i for i in room.ids if i != liar)[: room.session.degree]
    choice = choice * (len(room.ids) > 10)
    kem_keys = ()
    if room.session.hybrid:
        kem_keys = tuple(hybrid.HybridMaskPair(bytes([i]) * 32).kem.public for i in range(2))
    advert = Advert(
        tag(room.session.context0), pair.public, bytes(32), commitment, bytes(64), choice, b"", kem_keys
    )
    signed = advert.signed_part(room.session.context0, liar)
    advert = msgspec.structs.replace(advert, signature=room.identities[liar].sign(Stage.ADVERTISE, signed))
    head, adverts = (
        (messages.VERSION, room.session.summary(), liar),
        messages.encode_records({liar: advert.encode()}),
    )
    everything = advert_digest([adverts], 1)
    if room.session.graph == "chosen":
        everything = view_digest([sighting(liar, advert.encode())])
    context = context1(room.session.context0, everything)
    sealed = messages.encode_records({liar: bytes(room.session.dealt_bytes)})
    shut = messages.encode_records({liar: bytes(32)})
    signed = messages.share_body(context, liar, sealed)
    signature = pair.sign(messages.DEALING, signed)
    proof = messages.encode_records({liar: bytes(room.session.complaint_bytes)})
    last = messages.unmask_body(context, liar, sealed, shut, b"", proof)
    answer = room.identities[liar].sign(Stage.UNMASK, last)
    found = (
        evidence.AdvertEvidence(*head, advert.encode()),
        evidence.SealEvidence(*head, adverts, sealed, signature, 0, bytes(room.session.complaint_bytes)),
        evidence.PartEvidence(*head, adverts, sealed, signature, liar, bytes([1]) * 64),
        evidence.DealingEvidence(*head, adverts, sealed, signature, 0, shut),
        evidence.UnmaskEvidence(*head, adverts, sealed, shut, b"", proof, answer),
        evidence.VoucherEvidence(*head, adverts, bytes(36), signature, 0, bytes(PROOF_BYTES)),
    )
    for each in found:
        real.append(evidence.encode_evidence(each))
    if room.session.graph == "chosen":
        room.play(intercept=FalseVouchers(room, 1, liar))
        real.append(room.server.blamed[liar].evidence)

    def read(data: bytes) -> None:
        blame = evidence.verify_evidence(data, room.roster)
        if blame.client_id != liar:
            raise AssertionError(f"evidence convicts client {blame.client_id}: {data.hex()}")

    def resized(data: bytes) -> None:
        """Sizes of the session, and what of the evidence is kept."""
        degree, threshold, count = struct.unpack("<3q", data[:24].ljust(24, b"\0"))
        invited = msgspec.structs.replace(room.session.invited, count=count)
        changed = msgspec.structs.replace(
            room.session.summary(), degree=degree, threshold=threshold, invited=invited
        )
        for each in found:
            with suppress(SecureSumError):
                read(evidence.encode_evidence(msgspec.structs.replace(each, session=changed)))

    sizes = (room.session.degree, room.session.threshold, len(room.ids))
    starts = [struct.pack("<3q", *sizes), struct.pack("<3q", -45, -1, 2**40)]
    name = f"evidence, {room.session.graph}, {room.session.suite}"
    return [(name, read, real), (f"{name}: sizes", resized, starts)]


def _room(mode: str, *, doubts: int = 0, **fields: Any) -> tuple[Rehearsal, Callable[..., bytes]]:
    """A session, and who is in its middle; on a chosen graph perhaps a false voucher for client 1."""
    if mode != "chosen":
        fields["ids"] = range(20) if "graph" in fields else range(4)
    room = rehearsed(mode, spec=CountSpec(20), **fields)
    return room, FalseVouchers(room, doubts) if doubts else untouched


def _of_a_session(name: str, mode: str, **fields: Any) -> list[Target]:
    rehearsal, lie = _room(mode, **fields)
    seen: dict[Any, bytes] = {}
    states: dict[Stage, Any] = {}
    gatherings: dict[Stage, Any] = {}

    def note(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes:
        message = lie(stage, sender, receiver, message)
        if receiver is SERVER:
            gatherings[stage] = rehearsal.server._state
        elif receiver == 1:
            states[stage] = rehearsal.clients[1]._state
            seen[stage] = bytes(message)
        if sender == 1:
            seen[stage, "up"] = bytes(message)
        return message

    # More runs, one a stage: the clients' states of the first are used up when it ends.
    rehearsal.play(intercept=note)
    opened, finished = rehearsal.server.opened(), rehearsal.clients[1]._state
    context0 = rehearsal.session.context0
    found: list[Target] = []
    for stage in stages(mode):
        gathering = gatherings[stage]
        found.append((f"{name}: server, {stage.value}", partial(gathering.accept, 1), [seen[stage, "up"]]))
        if stage is not Stage.ADVERTISE:
            found.append((f"{name}: client, {stage.value}", _client(mode, stage, **fields), [seen[stage]]))
    if rehearsal.session.hybrid:
        seed = hybrid.HybridMaskPair(rehearsal.rng[1].taken[96:128]).kem_seed()
        stop = messages.StopMessage(messages.VERSION, tag(finished.context), seed)
        refusing = partial(_refusing, gatherings[Stage.UPLOAD])
        found.append((f"{name}: server, stop", refusing, [messages.encode(stop)]))
    found.append((f"{name}: opened", partial(unmask.read_opened, finished), [opened]))
    offer = rehearsal.session.offer()
    found.append((f"{name}: offer", session.Session.from_offer, [offer]))
    advert = messages.decode(
        messages.AdvertMessage, seen[Stage.ADVERTISE, "up"], context0, limit=10**6, stage=Stage.ADVERTISE
    ).advert
    found.append(
        (
            f"{name}: advert",
            lambda data: check_advert(data, 1, rehearsal.session, rehearsal.roster, Stage.SHARE),
            [advert],
        )
    )
    early = (messages.AdvertMessage, messages.AdvertsMessage)
    for kind in KINDS:
        real = next((m for m in [*seen.values(), opened] if m[1] == kind.__struct_config__.tag), b"\x94")
        context = finished.context
        if kind in early or (mode == "chosen" and kind is messages.OpenedMessage):
            context = context0
        found.append((f"{name}: {kind.__name__}", partial(_decode, kind, context), [real]))
    if not fields and mode == "active":
        found.append(
            ("records", lambda data: messages.decode_records(data, 33, stage=Stage.UNMASK), [bytes(74)])
        )
        statements = messages.encode_statements({1: (bytes(64), b"sealed"), 3: (b"\1" * 64, b"")})
        found.append(("statements", partial(messages.decode_statements, stage=Stage.UNMASK), [statements]))
        views = messages.encode_views({1: u32(1) + bytes(32) + u32(3) + b"\1" * 32, 3: b""})
        found.append(("views", partial(messages.decode_views, stage=Stage.UNMASK), [views]))
        found.append(("ids", lambda data: messages.decode_ids(data, stage=Stage.UPLOAD), [bytes(range(16))]))
        found.append(("shares", _combine, [bytes(range(70)), b"\xff" * 70]))
        found.append(("words", partial(_unpack, rehearsal.session.packing), [bytes(16)]))
    return found


def _refusing(gathering: Any, data: bytes) -> None:
    """A stop: nothing that a client may say instead of an upload is an upload."""
    if messages.is_a(messages.StopMessage, data):
        gathering.accept(1, data)
        raise AssertionError(f"a stop was taken for an upload: {data.hex()}")


def _client(mode: str, stage: Stage, **fields: Any) -> Callable[[bytes], Any]:
    """The reading half of a client's stage, which leaves the state as it was."""
    before = stages(mode)[stages(mode).index(stage) - 1]
    fresh, lie = _room(mode, **fields)
    inbox = fresh.play(intercept=lie, until=before)
    state = fresh.clients[1]._state
    assert inbox[1]
    if stage is Stage.SHARE:
        return partial(share._read_adverts, state)
    if stage is Stage.UPLOAD:
        return partial(upload._read_shares, state)
    if mode == "chosen":
        return partial(vouch.vouch if stage is Stage.CONFIRM else _read_vouched, state)
    if stage is Stage.CONFIRM or mode == "semi_honest":
        return lambda data: read_survivors(state, data, stage)
    return partial(_read_confirmations, state)


def _read_confirmations(state: confirm.Confirmed, data: bytes) -> None:
    """`unmask.unmask` up to its checks; it releases shares once, so a copy of what it needs is kept."""
    uploaded = state.uploaded
    message = messages.decode(
        messages.ConfirmationsMessage, data, uploaded.context, limit=10**6, stage=Stage.UNMASK
    )
    for peer, signature in messages.decode_records(message.signatures, 64, stage=Stage.UNMASK).items():
        unmask._verify(uploaded.party, peer, state, signature)
    unmask._check_appeals(uploaded, message.appeals)


def _read_vouched(state: vouch.Vouched, data: bytes) -> None:
    """`vouch.unmask_vouched` up to the keys that it gives, which it gives once."""
    release = vouch.release
    vouch.release = lambda *arguments, **more: None
    try:
        vouch.unmask_vouched(state, data)
    finally:
        vouch.release = release


def _decode(kind: type[messages.Message], context: bytes, data: bytes) -> None:
    message = messages.decode(kind, data, context, limit=100_000, stage=Stage.SHARE)
    if messages.encode(message) != data:
        raise AssertionError(f"{kind.__name__} accepts bytes that it does not write: {data.hex()}")


def _combine(data: bytes) -> None:
    width = 35
    cut = [data[i : i + width] for i in range(0, len(data), width)]
    shamir.combine({int.from_bytes(piece[:2]): piece[2:] for piece in cut}, max(len(cut), 1))


def _unpack(packing: Any, data: bytes) -> None:
    words = np.zeros(packing.length, dtype=np.uint64)
    usable = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")[: words.size]
    words[: usable.size] = usable
    packing.unpack(words, survivors=4, bound=1)


def one_input(all_targets: list[Target], data: bytes) -> str:
    """Run one input: a target's number and its bytes. Says how it ended."""
    if not data:
        return "empty"
    _, read, _ = all_targets[data[0] % len(all_targets)]
    try:
        read(bytes(data[1:]))
    except SecureSumError as error:
        return type(error).__name__
    return "accepted"


def mutated(message: bytes, draw: random.Random) -> bytes:
    """A message with something wrong in it: in its bytes, or in a field of an otherwise well-formed one."""
    if draw.random() < 0.5:
        try:
            fields = msgspec.msgpack.decode(message)
        except (msgspec.MsgspecError, ValueError):
            fields = None
        if isinstance(fields, list) and len(fields) > 3:
            place = draw.randrange(3, len(fields))
            if isinstance(fields[place], bytes):
                fields[place] = scrambled(fields[place], draw)
            else:
                fields[place] = draw.choice((0, 1, 3, 5, 2**32, 2**64 - 1))
            return msgspec.msgpack.encode(fields)
    return scrambled(message, draw)


def scrambled(message: bytes, draw: random.Random) -> bytes:
    """One to four things that go wrong with bytes."""
    data = bytearray(message)
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(data) + 1)
        match draw.randrange(8):
            case 0 if data:
                data[place % len(data)] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[place % len(data)] = draw.choice((0, 1, 0x7F, 0x80, 0x90, 0xC4, 0xC6, 0xDD, 0xFF))
            case 2:
                del data[place:]
            case 3:
                data[place:place] = draw.randbytes(draw.randrange(1, 9))
            case 4:
                del data[place : place + draw.randrange(1, 9)]
            case 5:
                data[place : place + 4] = draw.choice((b"\xff" * 4, bytes(4), b"\x00\x00\x01\x00"))
            case 6:
                data[:] = draw.randbytes(draw.randrange(1, 200))
            case _:
                data[place:place] = data[: draw.randrange(1, 40)]
    return bytes(data)


def by_mutation(runs: int, seed: int = 0) -> dict[str, int]:
    """Random mutations of real messages, evenly over the targets. Returns how the inputs ended."""
    all_targets, draw = targets(), random.Random(seed)
    ends: dict[str, int] = {}
    for i in range(runs):
        number = i % len(all_targets)
        data = bytes([number]) + mutated(draw.choice(all_targets[number][2]), draw)
        end = one_input(all_targets, data)
        ends[end] = ends.get(end, 0) + 1
    return ends


def main() -> None:
    try:
        import atheris
    except ImportError:
        options = dict(option.lstrip("-").split("=") for option in sys.argv[1:])
        start = time.perf_counter()
        ends = by_mutation(int(options.get("runs", 100_000)), int(options.get("seed", 0)))
        print(f"{sum(ends.values())} inputs in {time.perf_counter() - start:.1f} s: {ends}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        return
    atheris.instrument_all()
    all_targets = targets()
    if len(all_targets) > 256:
        raise AssertionError("a target's number is one byte")
    folders = [Path(option) for option in sys.argv[1:] if not option.startswith("-")]
    if folders:  # the first folder is the corpus: begin it with the real messages
        folders[0].mkdir(exist_ok=True)
        for number, (_, _, real) in enumerate(all_targets):
            for i, message in enumerate(real):
                (folders[0] / f"real-{number}-{i}").write_bytes(bytes([number]) + message)
    atheris.Setup(sys.argv, lambda data: one_input(all_targets, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
