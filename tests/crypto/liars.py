"""Clients that leave the protocol in every way a signature, a share, a key or a form can be wrong.

``python tests/crypto/liars.py --sessions 10000`` plays random sessions of ten clients with one liar or two,
and checks each: the sum of the survivors opens, or that of the next session, without those whom the evidence
convicts; every liar is named; nobody else ever is. A liar is a real client with an insider in the middle, who
has its keys and changes what it says. One more session may be lost where a liar lied to the other liar alone,
and with ``--suite x25519+ml-kem-768``: there clients stop at upload, before another liar is found out.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import reference as wire
from rehearsal import HYBRID, Rehearsal

from prism_crypto import Policy, Roster, SecureSumError, Stage, verify_evidence
from prism_crypto.primitives import hybrid
from prism_crypto.primitives.agreement_proof import prove_agreement
from prism_crypto.primitives.hybrid import Encapsulated, hybrid_seal_keys
from prism_crypto.primitives.keys import AgreedKey, KeyPair, seal, seal_keys
from prism_crypto.primitives.shamir import PRIME, coefficients, lagrange_weights, split
from prism_crypto.stages.advert import Advert
from prism_crypto.wire import messages as m

CLIENTS, THRESHOLD = 10, 7
LOW_ORDER = [0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504, 2**255 - 20]


@dataclass
class Liar:
    """One client that lies at one stage.

    ``named``: how it must be found out: "blamed" with evidence, "refused" by the server when it speaks, or
    "" where what it did has no consequence.
    """

    client_id: int
    name: str
    draw: random.Random
    session: Rehearsal
    named: str = ""
    victims: tuple[int, ...] = ()
    state: Any = None  # of the client, as it was when it had shared
    silent_from: Stage | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> bytes:
        return self.state.context

    def others(self) -> list[int]:
        known = self.session.ids if self.state is None else self.state.neighbours
        return [i for i in known if i != self.client_id]

    def some(self, least: int = 1, most: int = 9) -> tuple[int, ...]:
        pool = self.others()
        return tuple(sorted(self.draw.sample(pool, self.draw.randint(least, min(most, len(pool))))))

    def sign(self, stage: Stage, body: bytes) -> bytes:
        return self.session.identities[self.client_id].sign(stage, body)

    def parsed(self, kind: type, data: bytes) -> Any:
        return msgspec.msgpack.decode(data, type=kind)

    # --- what it says at each stage

    def advert(self, data: bytes, change: Callable[[Advert], Advert]) -> bytes:
        context0 = self.session.session.context0
        message = self.parsed(m.AdvertMessage, data)
        advert = change(Advert.decode(message.advert, signed=True, hybrid=self.session.session.hybrid))
        signed = self.sign(Stage.ADVERTISE, advert.signed_part(context0, self.client_id))
        advert = msgspec.structs.replace(advert, signature=signed)
        return m.encode(msgspec.structs.replace(message, advert=advert.encode()))

    def record_signature(self, holder: int, dealt: bytes) -> bytes:
        """Hybrid: over what one holder gets."""
        body = m.record_body(self.context, (self.client_id, holder), dealt)
        return self.session.key_signature(self.client_id, m.RECORD, body)

    def dealing(
        self,
        data: bytes,
        change: Callable[[dict[int, bytes]], bytes | None],
        *,
        sign_records: bool = True,
    ) -> bytes:
        message = self.parsed(m.ShareMessage, data)
        records = m.decode_records(message.sealed, self.session.session.dealt_bytes, stage=Stage.SHARE)
        self.notes["dealt"] = dict(records)
        sealed = change(records)
        if self.session.session.hybrid and sign_records:
            for holder, record in records.items():
                if record != self.notes["dealt"].get(holder):
                    records[holder] = record[:-64] + self.record_signature(holder, record[:-64])
        sealed = m.encode_records(records) if sealed is None else sealed
        body = m.share_body(self.context, self.client_id, sealed)
        signature = self.session.key_signature(self.client_id, m.DEALING, body)
        return m.encode(msgspec.structs.replace(message, sealed=sealed, signature=signature))

    def seal(self, holder: int, which: int, share: bytes) -> bytes:
        """A share of the liar's choice, sealed as it should be."""
        own = self.state.sealing.public
        neighbour = self.state.neighbours[holder]
        ends, keys = (self.client_id, holder), (own, neighbour.sealing_key)
        if self.session.session.hybrid:
            ciphertext = Encapsulated.cut(self.notes["dealt"][holder][98:]).sealing
            secret = SECRETS[ciphertext]
            both = hybrid_seal_keys(neighbour.agreed, secret, ciphertext, self.context, ends, keys)
        else:
            both = seal_keys(neighbour.agreed, self.context, ends, keys)
        return seal(both[which], self.context, ends, share)

    def secret_of(self, dealer: int) -> bytes:
        """What a dealer encapsulated for its seals for this one; nothing in a classical session."""
        if not self.session.session.hybrid:
            return b""
        record = wire.read_records(self.notes["received"], self.session.session.dealt_bytes)[dealer]
        return SECRETS[Encapsulated.cut(record[98:]).sealing]

    def upload(self, data: bytes, unopened: tuple[int, ...]) -> bytes:
        message = self.parsed(m.UploadMessage, data)
        lacking = wire.id_list(list(unopened))
        body = m.upload_body(self.context, self.client_id, message.words, lacking)
        return m.encode(
            msgspec.structs.replace(message, unopened=lacking, signature=self.sign(Stage.UPLOAD, body))
        )

    def unmask(self, data: bytes, change: Callable[[list[dict[int, bytes]]], None]) -> bytes:
        message = self.parsed(m.UnmaskMessage, data)
        complaint = self.session.session.complaint_bytes
        widths = ((message.seed_keys, 32), (message.mask_keys, 32), (message.complaints, complaint))
        cut = [m.decode_records(blob, width, stage=Stage.UNMASK) for blob, width in widths]
        change(cut)
        fields = [m.encode_records(records) for records in cut]
        body = m.unmask_body(self.context, self.client_id, self.notes["received"], *fields)
        return m.encode(m.UnmaskMessage(message.version, message.tag, *fields, self.sign(Stage.UNMASK, body)))

    # --- where it sits

    def __call__(
        self, stage: Stage, sender: int | None, receiver: int | None, message: bytes
    ) -> bytes | None:
        client = self.session.clients[self.client_id]
        if receiver == self.client_id and stage is Stage.UPLOAD:
            self.notes["received"] = self.parsed(m.SharesMessage, message).sealed
        if receiver == self.client_id and stage is Stage.UNMASK and self.notes.get("claims"):
            message = m.encode(
                msgspec.structs.replace(self.parsed(m.ConfirmationsMessage, message), appeals=b"")
            )
        if sender != self.client_id:
            return message
        if self.silent_from is not None and not stage.before(self.silent_from):
            return None
        if m.is_a(m.StopMessage, message):
            return message  # another liar's doing
        if stage is Stage.SHARE:
            old = client._state
            self.state = _Kept(old.context, _Public(old.sealing.public), _kept_agreements(old.neighbours))
            self.notes["private"] = self.session.rng[self.client_id].taken[:32]
        return DEVIATIONS[self.name](self, stage, message)


@dataclass
class _Public:
    public: bytes


@dataclass
class _Kept:
    context: bytes
    sealing: _Public
    neighbours: dict[int, Any]


@dataclass
class _Agreed:
    sealing_key: bytes
    agreed: Any


def _kept_agreements(neighbours: dict[int, Any]) -> dict[int, _Agreed]:
    kept = {}
    for i, neighbour in neighbours.items():
        kept[i] = _Agreed(neighbour.sealing_key, copied(bytes(neighbour.agreed._prk.reveal())))
    return kept


Deviation = Callable[[Liar, Stage, bytes], bytes | None]
DEVIATIONS: dict[str, Deviation] = {}
SECRETS: dict[bytes, bytes] = {}
"""Hybrid sessions: what was encapsulated, by its ciphertext."""


def deviation(function: Deviation) -> Deviation:
    DEVIATIONS[function.__name__] = function
    return function


def ways_to_lie(suite: str) -> list[str]:
    """X25519 alone has private keys that are twins; hybrid sessions alone have what is encapsulated."""
    absent = "_a_twin_of_its_key_" if suite == HYBRID else "hybrid_"
    return [name for name in sorted(DEVIATIONS) if absent not in name]


@contextmanager
def _noting_secrets() -> Iterator[None]:
    real = hybrid.encapsulate

    def noted(public: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = real(public)
        SECRETS[ciphertext] = secret
        return secret, ciphertext

    hybrid.encapsulate = noted
    try:
        yield
    finally:
        hybrid.encapsulate = real
        SECRETS.clear()


def _garbled(liar: Liar, message: bytes) -> bytes:
    """Bytes that the signature does not cover: nobody can prove whose fault they are."""
    liar.named = "refused"
    data = bytearray(message)
    match liar.draw.randrange(4):
        case 0:
            return liar.draw.randbytes(liar.draw.randrange(200))
        case 1:
            return bytes(data[: liar.draw.randrange(len(data))])
        case 2:
            return bytes(data) + b"\0"
        case _:
            data[liar.draw.randrange(3, len(data))] ^= 1 << liar.draw.randrange(8)
            return bytes(data)


def _garbles(stage: Stage) -> None:
    def garble(liar: Liar, at: Stage, message: bytes) -> bytes:
        return _garbled(liar, message) if at is stage else message

    DEVIATIONS[f"garbles_its_{stage.value}_message"] = garble


for _stage in Stage:
    _garbles(_stage)


@deviation
def advertises_a_useless_key(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.ADVERTISE:
        return message
    liar.named = "blamed"
    twist = (2).to_bytes(32, "little")
    key = liar.draw.choice(
        [value.to_bytes(32, "little") for value in LOW_ORDER] + [(2**255 - 9).to_bytes(32, "little"), twist]
    )
    name = liar.draw.choice(("sealing_key", "mask_key"))
    return liar.advert(message, lambda advert: msgspec.structs.replace(advert, **{name: key}))


@deviation
def advertises_one_key_for_both(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.ADVERTISE:
        return message
    liar.named = "blamed"
    return liar.advert(message, lambda a: msgspec.structs.replace(a, mask_key=a.sealing_key))


@deviation
def commits_to_another_seed(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.ADVERTISE:
        return message
    liar.named = "blamed"
    changed = liar.advert(message, lambda a: msgspec.structs.replace(a, commitment=liar.draw.randbytes(32)))
    state = liar.session.clients[liar.client_id]._state
    state.advert = liar.parsed(m.AdvertMessage, changed).advert
    return changed


@deviation
def signs_a_dealing_of_another_form(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.SHARE:
        return message
    liar.named = "blamed"
    victim, width = liar.some(1, 1)[0], 4 + liar.session.session.dealt_bytes
    changes: list[Callable[[dict[int, bytes]], bytes | None]] = [
        lambda cut: cut.pop(victim) and None,
        lambda cut: cut.update({99: cut.pop(victim)}),
        lambda cut: m.encode_records(cut)[:-1],
        lambda cut: m.encode_records(cut)[width:] + m.encode_records(cut)[:width],
        lambda cut: b"",
    ]
    return liar.dealing(message, liar.draw.choice(changes))


@deviation
def seals_garbage_for_some(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.SHARE:
        return message
    liar.named, liar.victims = "blamed", liar.some()
    half = liar.draw.randrange(3)

    def change(cut: dict[int, bytes]) -> None:
        for i in liar.victims:
            junk = liar.draw.randbytes(98)
            cut[i] = (junk, junk[:49] + cut[i][49:98], cut[i][:49] + junk[49:])[half] + cut[i][98:]

    return liar.dealing(message, change)


@deviation
def swaps_what_it_seals(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.SHARE:
        return message
    liar.named, liar.victims = "blamed", liar.some(2, 2)
    a, b = liar.victims
    return liar.dealing(
        message, lambda cut: cut.update({a: cut[b][:98] + cut[a][98:], b: cut[a][:98] + cut[b][98:]})
    )


@deviation
def seals_what_is_no_share(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.SHARE:
        return message
    liar.named, liar.victims = "blamed", liar.some()
    which = liar.draw.randrange(2)
    share = liar.draw.choice([PRIME.to_bytes(33, "big"), b"\xff" * 33, bytes(32)])

    def change(cut: dict[int, bytes]) -> None:
        for i in liar.victims:
            wrong = liar.seal(i, which, share).ljust(49, b"\0")
            cut[i] = wrong + cut[i][49:] if which == 0 else cut[i][:49] + wrong + cut[i][98:]

    return liar.dealing(message, change)


def _deals_wrong_shares(liar: Liar, message: bytes, which: int) -> bytes:
    liar.named, liar.victims = "blamed", liar.some()
    one = liar.draw.randrange(PRIME).to_bytes(33, "big")

    def change(cut: dict[int, bytes]) -> None:
        for i in liar.victims:
            share = one if liar.draw.random() < 0.3 else liar.draw.randrange(PRIME).to_bytes(33, "big")
            wrong = liar.seal(i, which, share)
            cut[i] = wrong + cut[i][49:] if which == 0 else cut[i][:49] + wrong + cut[i][98:]

    return liar.dealing(message, change)


@deviation
def deals_wrong_shares_of_its_seed(liar: Liar, at: Stage, message: bytes) -> bytes:
    return _deals_wrong_shares(liar, message, 0) if at is Stage.SHARE else message


@deviation
def deals_wrong_shares_of_its_key_and_drops_out(liar: Liar, at: Stage, message: bytes) -> bytes:
    liar.silent_from = Stage.UPLOAD
    return _deals_wrong_shares(liar, message, 1) if at is Stage.SHARE else message


def _deals_a_twin(liar: Liar, message: bytes, victim: int, helpers: list[int]) -> bytes:
    """Right shares, but one: with those of t - 1 helpers it gives another private key of the same public key.

    X25519 ignores the three lowest bits and the highest of a private key.
    """
    liar.named, liar.victims = "blamed", (victim,)
    taken = liar.session.rng[liar.client_id].taken
    private, dealing, x = taken[32:64], taken[96:128], victim + 1
    points = [i + 1 for i in [liar.client_id, *liar.state.neighbours]]
    right = split(private, THRESHOLD, points, coefficients(dealing, liar.context, "key"))
    xs = tuple(sorted([x, *(i + 1 for i in helpers)]))
    step = (private[0] ^ 1) - private[0]
    share = int.from_bytes(right[x]) + (step << 248) * pow(lagrange_weights(xs)[xs.index(x)], -1, PRIME)

    def change(cut: dict[int, bytes]) -> None:
        cut[victim] = cut[victim][:49] + liar.seal(victim, 1, (share % PRIME).to_bytes(33))

    return liar.dealing(message, change)


@deviation
def deals_a_twin_of_its_key_to_the_last_and_drops_out(liar: Liar, at: Stage, message: bytes) -> bytes:
    liar.silent_from = Stage.UPLOAD
    if at is not Stage.SHARE:
        return message
    others = sorted(liar.others())
    return _deals_a_twin(liar, message, others[-1], others[: THRESHOLD - 1])


@deviation
def deals_a_twin_of_its_key_to_the_first_and_drops_out(liar: Liar, at: Stage, message: bytes) -> bytes:
    liar.silent_from = Stage.UPLOAD
    if at is not Stage.SHARE:
        return message
    others = sorted(liar.others())
    return _deals_a_twin(liar, message, others[0], others[1:THRESHOLD])


@deviation
def deals_a_twin_of_its_key_to_any_and_drops_out(liar: Liar, at: Stage, message: bytes) -> bytes:
    liar.silent_from = Stage.UPLOAD
    if at is not Stage.SHARE:
        return message
    victim, *helpers = liar.draw.sample(liar.others(), THRESHOLD)
    return _deals_a_twin(liar, message, victim, helpers)


def _complains(liar: Liar, at: Stage, message: bytes, proof: Callable[[int], bytes] | None) -> bytes:
    if at is Stage.UPLOAD and liar.parsed(m.UploadMessage, message).unopened:
        liar.notes["honest"] = True  # it has reason to complain, and does not add to it
    if liar.notes.get("honest"):
        return message
    if at is Stage.UPLOAD:
        liar.named, liar.victims = "blamed" if proof else "refused", liar.some(1, liar.session.session.spare)
        sharers = wire.read_records(liar.notes["received"], liar.session.session.dealt_bytes)
        liar.victims = tuple(i for i in liar.victims if i in sharers) or (
            next(i for i in sharers if i != liar.client_id),
        )
        liar.notes["claims"] = True
        return liar.upload(message, liar.victims)
    if at is Stage.UNMASK:

        def change(cut: list[dict[int, bytes]]) -> None:
            for i in liar.victims:
                cut[0].pop(i, None), cut[1].pop(i, None)
                if proof is not None:
                    cut[2][i] = proof(i) + liar.secret_of(i)

        return liar.unmask(message, change)
    return message


@deviation
def complains_of_the_honest_without_proof(liar: Liar, at: Stage, message: bytes) -> bytes:
    return _complains(liar, at, message, lambda i: liar.draw.randbytes(96))


@deviation
def complains_of_shares_that_open(liar: Liar, at: Stage, message: bytes) -> bytes:
    def proof(i: int) -> bytes:
        theirs = liar.state.neighbours[i].sealing_key
        return prove_agreement(liar.notes["private"], liar.state.sealing.public, theirs, liar.context)

    return _complains(liar, at, message, proof)


@deviation
def complains_and_leaves_the_proofs_out(liar: Liar, at: Stage, message: bytes) -> bytes:
    return _complains(liar, at, message, None)


@deviation
def gives_wrong_keys_at_unmask(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.UNMASK:
        return message
    liar.named = "blamed"

    def change(cut: list[dict[int, bytes]]) -> None:
        owners = sorted(cut[0] | cut[1])
        for i in liar.draw.sample(owners, liar.draw.randint(1, len(owners))):
            given = cut[0] if i in cut[0] else cut[1]
            given[i] = liar.draw.choice([liar.draw.randbytes(32), bytes(32), bytes(31) + given[i][:1]])

    return liar.unmask(message, change)


@deviation
def swaps_its_keys_at_unmask(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.UNMASK:
        return message
    liar.named = "blamed"

    def change(cut: list[dict[int, bytes]]) -> None:
        a, b = liar.draw.sample(sorted(cut[0]), 2)
        cut[0][a], cut[0][b] = cut[0][b], cut[0][a]

    return liar.unmask(message, change)


@deviation
def leaves_keys_out_at_unmask(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.UNMASK:
        return message
    liar.named = "refused"
    return liar.unmask(message, lambda cut: cut[0].pop(liar.draw.choice(sorted(cut[0]))) and None)


def _encapsulates_wrongly(liar: Liar, message: bytes, place: int, most: int) -> bytes:
    """Signs a dealing with one bit changed, of what is encapsulated to some."""
    liar.victims = liar.some(1, most)

    def change(cut: dict[int, bytes]) -> None:
        for i in liar.victims:
            record = bytearray(cut[i])
            record[place] ^= 1 << liar.draw.randrange(8)
            cut[i] = bytes(record)

    return liar.dealing(message, change)


@deviation
def hybrid_sends_another_part_of_a_mask(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.SHARE:
        return message
    liar.named = "blamed"
    ciphertext, part, its_hash = range(1186, 2274), range(2274, 2306), range(2338, 2370)
    return _encapsulates_wrongly(liar, message, liar.draw.choice((*ciphertext[::34], *part, *its_hash)), 9)


@deviation
def hybrid_signs_another_secret_for_its_seals(liar: Liar, at: Stage, message: bytes) -> bytes:
    """Only the receiver can tell, and nobody is named: so few that the shares of the others are enough."""
    if at is not Stage.SHARE:
        return message
    ciphertext, its_hash = range(98, 1186), range(2306, 2338)
    return _encapsulates_wrongly(liar, message, liar.draw.choice((*ciphertext[::34], *its_hash)), 2)


@deviation
def hybrid_signs_no_record(liar: Liar, at: Stage, message: bytes) -> bytes:
    """Or one wrongly: all that it deals is under its signature."""
    if at is not Stage.SHARE:
        return message
    liar.named, liar.victims = "blamed", liar.some()

    def change(cut: dict[int, bytes]) -> None:
        for i in liar.victims:
            others = [junk[-64:] for holder, junk in cut.items() if holder != i]
            cut[i] = cut[i][:-64] + liar.draw.choice([liar.draw.randbytes(64), *others])

    return liar.dealing(message, change, sign_records=False)


@deviation
def hybrid_stops_without_reason(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.UPLOAD:
        return message
    liar.named = "refused"
    own = hybrid.HybridMaskPair(liar.session.rng[liar.client_id].taken[96:128]).kem_seed()
    seed = liar.draw.choice((own, liar.draw.randbytes(64), liar.draw.randbytes(32)))
    return m.encode(m.StopMessage(m.VERSION, liar.context[:16], seed))


@deviation
def hybrid_advertises_a_useless_key(liar: Liar, at: Stage, message: bytes) -> bytes:
    if at is not Stage.ADVERTISE:
        return message
    liar.named = "blamed"
    which, junk = liar.draw.randrange(2), b"\xff" * 1184

    def change(advert: Advert) -> Advert:
        keys = list(advert.kem_keys)
        keys[which] = liar.draw.choice((junk, keys[1 - which]))
        return msgspec.structs.replace(advert, kem_keys=tuple(keys))

    return liar.advert(message, change)


def play(names: tuple[str, ...], seed: int, suite: str = "x25519") -> str:
    """One session with these liars, and the next ones if it is lost; returns how it ended.

    Raises:
        AssertionError: somebody is named who should not be, or is not who should; or no sum opens.
    """
    with _noting_secrets():
        return _play(names, seed, suite)


def _play(names: tuple[str, ...], seed: int, suite: str) -> str:
    draw, policy = random.Random(seed), Policy(min_survivors=THRESHOLD)
    room = Rehearsal(range(CLIENTS), label=f"liars {seed}", policy=policy, suite=suite)
    liars = [
        Liar(i, name, draw, room) for i, name in zip(draw.sample(room.ids, len(names)), names, strict=True)
    ]
    lying = {liar.client_id for liar in liars}
    where = f"seed {seed}: {[(liar.client_id, liar.name) for liar in liars]}"
    convicted: dict[int, Any] = {}
    again = len(names) if suite == HYBRID else 1
    for number in range(1, 2 + len(names)):
        if number > 1:
            room = Rehearsal(
                range(CLIENTS),
                label=f"liars {seed}, again" + (f" {number}" if number > 2 else ""),
                policy=policy,
                counters=room.counters,
                number=number,
                min_survivors=THRESHOLD,
                excluded=convicted.values(),
                suite=suite,
            )
            liars = [Liar(i.client_id, i.name, draw, room) for i in liars if i.client_id not in convicted]
        refused: list[Any] = []
        lost = _run(room, liars, refused)
        blamed = room.server.blamed
        for client_id, blame in blamed.items():
            assert client_id in lying, f"{where}: {blame} is innocent"
            assert verify_evidence(blame.evidence, room.roster) == blame
        _check_refusals(liars, refused, where)
        if lost is None or (number == 1 and suite != HYBRID):
            _check_named(liars, room, refused, where)
        again += number == 1 and suite != HYBRID and any(_among_themselves(liar, lying) for liar in liars)
        convicted |= blamed
        if lost is None:
            result = room.server.result
            assert not set(result.survivors) & (set(convicted) - set(blamed))
            assert result.counts.tolist() == room.expected(result.survivors), f"{where}: a wrong sum"
            return ("opened", "opened in the next session", "opened in the one after that")[number - 1]
        assert blamed, f"{where}: {lost!r}, and nobody is blamed"
        assert number <= again, f"{where}: session {number} is lost, too: {lost!r}"
    raise AssertionError(f"{where}: each session is lost, the last by {lost!r}")


def _among_themselves(liar: Liar, lying: set[int]) -> bool:
    """So far it has lied to other liars alone, and may cost a session of its own."""
    return bool(liar.victims) and lying.issuperset(liar.victims)


def _check_refusals(liars: list[Liar], refused: list[Any], where: str) -> None:
    """The server refuses what liars say; beside, those stop who got another part of a mask."""
    lying = {liar.client_id for liar in liars}
    parts = [liar.victims for liar in liars if liar.name == hybrid_sends_another_part_of_a_mask.__name__]
    stopping = {error.peer for error in refused if "stops: " in str(error)} - lying
    assert stopping <= {i for victims in parts for i in victims}, f"{where}: {refused}"
    assert {error.peer for error in refused} <= lying | stopping, f"{where}: {refused}"


def _check_named(liars: list[Liar], room: Rehearsal, refused: list[Any], where: str) -> None:
    lying, blamed = {liar.client_id for liar in liars}, room.server.blamed
    for liar in liars:
        if _among_themselves(liar, lying):
            continue
        spoke = liar.named == "refused" and any(error.peer == liar.client_id for error in refused)
        assert not liar.named or liar.client_id in blamed or spoke, f"{where}: {liar.client_id} is not named"
        assert liar.named != "blamed" or liar.client_id in blamed, f"{where}: {liar.client_id} is not blamed"


def _run(room: Rehearsal, liars: list[Liar], refused: list[Any]) -> SecureSumError | None:
    def intercept(stage: Stage, sender: int | None, receiver: int | None, message: bytes) -> bytes | None:
        changed: bytes | None = message
        for liar in liars:
            if changed is not None and liar.client_id in (sender, receiver):
                changed = liar(stage, sender, receiver, changed)
        return changed

    try:
        room.play(intercept=intercept, refused=refused)
    except SecureSumError as error:
        lost = error
    else:
        return None
    assert room.server.stage is None, f"an honest client has left: {lost!r}"
    return lost


def once_for_all() -> None:
    """Let ten clients in one process check one signature once, and agree once for both: twice as quick."""
    verified: set[tuple[bytes, Stage, bytes, bytes]] = set()
    agreed: dict[frozenset[bytes], bytes] = {}
    verify, agree = Roster.verify, KeyPair.agree

    def verify_once(self: Roster, client_id: int, stage: Stage, body: bytes, signature: bytes) -> None:
        case = (self.public_key(client_id), stage, body, signature)
        if case not in verified:
            verify(self, client_id, stage, body, signature)
            verified.add(case)

    def agree_once(self: KeyPair, public: bytes) -> AgreedKey:
        pair = frozenset((self.public, public))
        if pair not in agreed:
            agreed[pair] = bytes(agree(self, public)._prk.reveal())
        return copied(agreed[pair])

    def forget() -> None:
        verified.clear(), agreed.clear()

    Roster.verify, KeyPair.agree = verify_once, agree_once  # type: ignore[method-assign]
    once_for_all.forget = forget  # type: ignore[attr-defined]


def copied(extracted: bytes) -> AgreedKey:
    copy = AgreedKey(bytes(32))
    copy._prk._value[:] = extracted
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first session")
    parser.add_argument("--suite", choices=["x25519", HYBRID], default="x25519")
    options = parser.parse_args()
    ends: Counter[str] = Counter()
    start = time.perf_counter()
    once_for_all()
    ways = ways_to_lie(options.suite)
    for seed in range(options.first, options.first + options.sessions):
        draw = random.Random(f"names {seed}")
        names = tuple(draw.choice(ways) for _ in range(draw.choice((1, 2))))
        ends[play(names, seed, options.suite)] += 1
        once_for_all.forget()  # type: ignore[attr-defined]
        if sum(ends.values()) % 100 == 0:
            print(f"{sum(ends.values())} so far: {dict(ends)}", file=sys.stderr)
    print(f"{sum(ends.values())} sessions in {time.perf_counter() - start:.0f} s: {dict(ends)}")
    print(f"{len(ways)} ways to lie; every liar was named, nobody else was")


if __name__ == "__main__":
    main()
