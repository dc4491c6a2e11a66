"""Messages that must be refused: one change each to one message of a session, and the error it ends in."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "crypto"))

import reference as wire
from forgery import alter_record, drop_record, flip, records, refield, resigned, signed, twice

from prism_crypto.stage import Stage


@dataclass
class Tampered:
    """One changed message, and how it must end."""

    name: str
    stage: Stage
    sender: int | None
    receiver: int | None
    change: Callable[[bytes], bytes]
    error: str
    peer: int | None
    refused_at: str = "receive"  # or "unmask", "close unmask": in that stage, or at its end


LOW_ORDER = (0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504)


def tampered(context0: bytes, context1: bytes, received: bytes, seed: bytes) -> Iterator[Tampered]:
    """Changes to the session ``active_drop_at_upload``: clients 0..3, 2 is silent from upload on, t = 3.

    Args:
        context0, context1: of that session.
        received: the records of shares that client 0 was sent.
        seed: of client 0's sealing key.
    """

    def mine(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        return signed(context1, 0, change, received, seed)

    S, case = Stage, Tampered
    yield case("too_short", S.ADVERTISE, 1, None, lambda data: data[:-1], "MessageError", 1)
    yield case("empty", S.ADVERTISE, 1, None, lambda data: b"", "MessageError", 1)
    yield case("one_byte_more", S.ADVERTISE, 1, None, lambda data: data + b"\0", "MessageError", 1)
    yield case(
        "other_kind", S.ADVERTISE, 1, None, lambda data: data[:1] + b"\x02" + data[2:], "MessageError", 1
    )
    yield case(
        "other_version", S.ADVERTISE, 1, None, lambda data: data[:2] + b"\x01" + data[3:], "MessageError", 1
    )
    yield case(
        "kind_not_in_its_shortest_form",
        S.ADVERTISE,
        1,
        None,
        lambda data: data[:1] + b"\xcc\x01" + data[2:],
        "MessageError",
        1,
    )
    yield case(
        "length_beyond_the_end",
        S.ADVERTISE,
        1,
        None,
        lambda data: data[:3] + b"\xc6\xff\xff\xff\xff" + data[5:],
        "MessageError",
        1,
    )
    yield case("advert_of_another_context", S.ADVERTISE, 1, None, flip(8), "ContextMismatch", 1)
    yield case("advert_signature_flipped", S.ADVERTISE, 1, None, flip(-1), "SignatureError", 1)
    yield case("advert_key_substituted", S.ADVERTISE, 1, None, flip(40), "SignatureError", 1)
    yield case("advert_commitment_substituted", S.ADVERTISE, 1, None, flip(110), "SignatureError", 1)
    for u in LOW_ORDER:
        yield case(
            f"advert_sealing_key_of_low_order_{u % 1000}",
            S.ADVERTISE,
            1,
            None,
            resigned(context0, 1, lambda said, u=u: u.to_bytes(32, "little") + said[32:]),
            "PublicKeyError",
            1,
        )
    yield case(
        "advert_mask_key_not_reduced",
        S.ADVERTISE,
        1,
        None,
        resigned(context0, 1, lambda said: said[:32] + (2**255 - 10).to_bytes(32, "little") + said[64:]),
        "PublicKeyError",
        1,
    )
    yield case(
        "advert_one_key_for_both",
        S.ADVERTISE,
        1,
        None,
        resigned(context0, 1, lambda said: said[:32] + said[:32] + said[64:]),
        "PublicKeyError",
        1,
    )

    yield case(
        "adverts_own_missing", S.SHARE, None, 1, records(1, 240, drop_record(1)), "ProtocolError", None
    )
    yield case(
        "adverts_too_few",
        S.SHARE,
        None,
        1,
        records(1, 240, lambda cut: [cut.pop(0), cut.pop(3)]),
        "ThresholdError",
        None,
    )
    yield case(
        "adverts_key_substituted",
        S.SHARE,
        None,
        1,
        records(1, 240, alter_record(3, flip(20))),
        "SignatureError",
        3,
    )
    yield case(
        "adverts_of_an_uninvited_client",
        S.SHARE,
        None,
        1,
        records(1, 240, lambda cut: cut.update({9: cut.pop(3)})),
        "ProtocolError",
        9,
    )
    yield case(
        "adverts_swapped",
        S.SHARE,
        None,
        1,
        records(1, 240, lambda cut: cut.update({0: cut[3], 3: cut[0]})),
        "SignatureError",
        0,
    )
    yield case("adverts_one_twice", S.SHARE, None, 1, records(1, 240, twice), "MessageError", None)
    yield case(
        "adverts_with_a_hash", S.SHARE, None, 1, refield(lambda f: [bytes(32), f[1]]), "MessageError", None
    )

    for name, change, error in (
        ("shares_one_missing", records(0, 98, drop_record(3)), "ProtocolError"),
        ("shares_for_a_stranger", records(0, 98, lambda cut: cut.update({9: cut.pop(3)})), "ProtocolError"),
        ("shares_own_missing", records(0, 98, drop_record(0)), "ProtocolError"),
        ("shares_one_twice", records(0, 98, twice), "MessageError"),
        ("shares_cut_within_a_record", refield(lambda f: [f[0][:-1], f[1]]), "MessageError"),
    ):
        yield case(name, S.SHARE, 0, None, mine(change), error, 0)
    yield case(
        "shares_altered_on_the_way",
        S.SHARE,
        0,
        None,
        records(0, 98, alter_record(3, flip(5))),
        "SignatureError",
        0,
    )

    yield case(
        "sealed_share_flipped",
        S.UPLOAD,
        None,
        0,
        records(2, 98, alter_record(3, flip(5))),
        "SealError",
        None,
        "unmask",
    )
    yield case(
        "own_sealed_share_flipped",
        S.UPLOAD,
        None,
        0,
        records(2, 98, alter_record(0, flip(5))),
        "SealError",
        None,
    )
    yield case(
        "sealed_shares_swapped",
        S.UPLOAD,
        None,
        0,
        records(2, 98, lambda cut: cut.update({1: cut[3], 3: cut[1]})),
        "SealError",
        None,
    )
    yield case(
        "sealed_share_missing", S.UPLOAD, None, 0, records(2, 98, drop_record(3)), "ProtocolError", None
    )
    yield case(
        "sharers_without_the_receiver",
        S.UPLOAD,
        None,
        0,
        refield(lambda f: [3, wire.id_list([1, 2, 3]), f[2]]),
        "ProtocolError",
        None,
    )
    yield case(
        "sharers_with_one_that_did_not_advertise",
        S.UPLOAD,
        None,
        0,
        refield(lambda f: [5, f[1] + wire.u32(7), f[2]]),
        "ProtocolError",
        7,
    )
    yield case("sharers_miscounted", S.UPLOAD, None, 0, refield(lambda f: [3, *f[1:]]), "MessageError", None)
    yield case(
        "sharers_too_few",
        S.UPLOAD,
        None,
        0,
        refield(lambda f: [2, wire.id_list([0, 1]), f[2][:204]]),
        "ThresholdError",
        None,
    )
    yield case(
        "sharers_unsorted",
        S.UPLOAD,
        None,
        0,
        refield(lambda f: [4, wire.id_list([1, 0, 2, 3]), f[2]]),
        "MessageError",
        None,
    )

    def resized(words: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        return refield(lambda f: [words(f[0]), *f[1:]])

    def added(word: int) -> Callable[[bytes], bytes]:
        """One more in one word; the last but one is the sentinel, the last the checksum."""

        def change(words: bytes) -> bytes:
            values = list(struct.unpack(f"<{len(words) // 8}Q", words))
            values[word] = (values[word] + 1) % 2**64
            return struct.pack(f"<{len(values)}Q", *values)

        return resized(change)

    for name, change, error in (
        ("upload_a_word_short", resized(lambda words: words[:-8]), "MessageError"),
        ("upload_a_word_more", resized(lambda words: words + bytes(8)), "MessageError"),
        (
            "upload_lacking_shares_of_two",
            refield(lambda f: [f[0], wire.id_list([1, 3]), f[2]]),
            "ProtocolError",
        ),
        (
            "upload_lacking_its_own_shares",
            refield(lambda f: [f[0], wire.id_list([0]), f[2]]),
            "ProtocolError",
        ),
    ):
        yield case(name, S.UPLOAD, 0, None, mine(change), error, 0)
    yield case("upload_altered_on_the_way", S.UPLOAD, 3, None, added(0), "SignatureError", 3)
    for name, word in (("sentinel", -2), ("checksum", -1)):
        yield case(
            f"upload_{name}_changed",
            S.UPLOAD,
            0,
            None,
            mine(added(word)),
            "SumError",
            None,
            "close unmask",
        )

    yield case(
        "survivors_without_the_receiver",
        S.CONFIRM,
        None,
        0,
        refield(lambda f: [3, wire.id_list([1, 2, 3])]),
        "ProtocolError",
        None,
    )
    yield case(
        "survivors_too_few",
        S.CONFIRM,
        None,
        0,
        refield(lambda f: [2, wire.id_list([0, 1])]),
        "ThresholdError",
        None,
    )
    yield case(
        "survivors_with_a_stranger",
        S.CONFIRM,
        None,
        0,
        refield(lambda f: [4, wire.id_list([0, 1, 3, 9])]),
        "ProtocolError",
        9,
    )
    yield case(
        "survivors_one_twice",
        S.CONFIRM,
        None,
        0,
        refield(lambda f: [4, wire.id_list([0, 1, 1, 3])]),
        "MessageError",
        None,
    )
    yield case("confirmation_flipped", S.CONFIRM, 1, None, flip(-1), "SignatureError", 1)
    yield case(
        "confirmation_too_short", S.CONFIRM, 1, None, refield(lambda f: [f[0][:-1]]), "SignatureError", 1
    )

    yield case(
        "confirmations_too_few",
        S.UNMASK,
        None,
        0,
        records(0, 64, lambda cut: [cut.pop(1), cut.pop(3)]),
        "ThresholdError",
        None,
    )
    yield case(
        "confirmations_one_flipped",
        S.UNMASK,
        None,
        0,
        records(0, 64, alter_record(3, flip(0))),
        "SignatureError",
        3,
    )
    yield case(
        "confirmations_of_the_dropped",
        S.UNMASK,
        None,
        0,
        records(0, 64, lambda cut: cut.update({2: cut.pop(3)})),
        "ProtocolError",
        2,
    )
    yield case("confirmations_one_twice", S.UNMASK, None, 0, records(0, 64, twice), "MessageError", None)

    yield case(
        "confirmations_with_an_appeal",
        S.UNMASK,
        None,
        0,
        refield(lambda f: [f[0], wire.u32(3) + bytes(64) + wire.text(b"")]),
        "ProtocolError",
        None,
    )

    for name, change, error in (
        ("seed_key_missing", records(0, 32, drop_record(1)), "ProtocolError"),
        ("seed_key_of_the_dropped", records(0, 32, lambda cut: cut.update({2: cut[1]})), "ProtocolError"),
        ("mask_key_of_a_survivor", records(1, 32, lambda cut: cut.update({1: cut[2]})), "ProtocolError"),
        ("complaint_of_nobody", refield(lambda f: [*f[:2], wire.u32(3) + bytes(96), f[3]]), "ProtocolError"),
        ("seed_key_twice", records(0, 32, twice), "MessageError"),
    ):
        yield case(name, S.UNMASK, 0, None, mine(change), error, 0)
    yield case(
        "seed_key_altered_on_the_way",
        S.UNMASK,
        0,
        None,
        records(0, 32, alter_record(1, flip(31))),
        "SignatureError",
        0,
    )
