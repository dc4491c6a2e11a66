"""The secure sum, a second time: slow and obvious, in Python integers and byte strings.

Written from the protocol's description and wire format, to disagree with `prism_crypto` where that has a
mistake. One class plays a client and one the server; a method a stage, bytes in and bytes out. Every check
that a party owes the others is a `demand`; a failed one raises `Refused`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from reference_primitives import (
    demand,
    ed25519_sign,
    ed25519_verify,
    gcm_open,
    gcm_seal,
    hkdf_sha256,
    keystream_words,
    pack,
    shamir_combine,
    shamir_split,
    unpack,
    word_count,
    x25519,
    x25519_public,
)

Rng = Callable[[int], bytes]

ADVERT, SHARE, UPLOAD, CONFIRM, UNMASK = 1, 2, 3, 4, 5
ADVERTS, SHARES, SURVIVORS, CONFIRMATIONS, OPENED = 17, 18, 19, 20, 21


# --- bytes ----------------------------------------------------------------------------------------------


def label(usage: str) -> bytes:
    return b"prism-crypto/v1/" + usage.encode() + b"\0"


def sha256(usage: str, *fields: bytes) -> bytes:
    return hashlib.sha256(label(usage) + b"".join(fields)).digest()


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def text(value: bytes) -> bytes:
    return u32(len(value)) + value


def id_list(ids: list[int]) -> bytes:
    return b"".join(map(u32, ids))


def read_ids(blob: bytes) -> list[int]:
    demand(len(blob) % 4 == 0, "ids of four bytes")
    ids = [int.from_bytes(blob[i : i + 4], "big") for i in range(0, len(blob), 4)]
    demand(ids == sorted(set(ids)), "ids strictly increasing")
    return ids


def read_records(blob: bytes, width: int) -> dict[int, bytes]:
    demand(len(blob) % (4 + width) == 0, "whole records")
    cut = [blob[i : i + 4 + width] for i in range(0, len(blob), 4 + width)]
    read_ids(b"".join(record[:4] for record in cut))
    return {int.from_bytes(record[:4], "big"): record[4:] for record in cut}


def write_records(records: dict[int, bytes]) -> bytes:
    return b"".join(u32(i) + records[i] for i in sorted(records))


def wrap(kind: int, tag: bytes, *fields: int | bytes) -> bytes:
    """A message: the msgpack array [kind, 1, tag, fields...], everything in its shortest form."""
    out = bytes([0x90 | 3 + len(fields)])
    for value in (kind, 1, tag, *fields):
        if isinstance(value, bytes):
            size = len(value)
            head = (b"\xc4", ">B") if size < 2**8 else (b"\xc5", ">H") if size < 2**16 else (b"\xc6", ">I")
            out += head[0] + struct.pack(head[1], size) + value
        elif value < 128:
            out += bytes([value])
        else:
            sizes = (
                (2**8, b"\xcc", ">B"),
                (2**16, b"\xcd", ">H"),
                (2**32, b"\xce", ">I"),
                (2**64, b"\xcf", ">Q"),
            )
            _, head, form = next(size for size in sizes if value < size[0])
            out += head + struct.pack(form, value)
    return out


def unwrap(data: bytes, kind: int, tag: bytes, *types: type) -> list:
    """The fields of a message of this kind and context; anything but its one encoding is refused."""
    demand(data[:1] == bytes([0x90 | 3 + len(types)]), "an array of the right length")
    rest, values = data[1:], []
    for wanted in (int, int, bytes, *types):
        demand(len(rest) > 0, "nothing missing")
        head, rest = rest[0], rest[1:]
        if wanted is int:
            size = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(head, 0)
            demand(size > 0 or head < 128, "an integer")
            values.append(int.from_bytes(rest[:size], "big") if size else head)
        else:
            demand(head in (0xC4, 0xC5, 0xC6), "a byte string")
            width = {0xC4: 1, 0xC5: 2, 0xC6: 4}[head]
            length = int.from_bytes(rest[:width], "big")
            rest, size = rest[width:], length
            demand(len(rest) >= length, "nothing missing")
            values.append(rest[:length])
        rest = rest[size:]
    demand(values[:3] == [kind, 1, tag], "this kind of message, this version, this context")
    demand(wrap(kind, tag, *values[3:]) == data, "the one encoding")
    return values[3:]


def words_to_bytes(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)


def bytes_to_words(data: bytes, count: int) -> list[int]:
    demand(len(data) == 8 * count, "as many words as the session has")
    return list(struct.unpack(f"<{count}Q", data))


# --- what all parties know ------------------------------------------------------------------------------


@dataclass
class Session:
    federation: str
    number: int
    round: int
    dimension: int
    bound: int
    codec: str
    mode: str
    threshold: int
    min_survivors: int
    min_cohort: int
    colluders: int
    graph: str
    degree: int
    invited: list[int]
    roster: dict[int, bytes] = field(default_factory=dict)
    model_hash: bytes = b""
    binding: bytes = b""

    @property
    def largest_total(self) -> int:
        return len(self.invited) * self.bound

    @property
    def words(self) -> int:
        return word_count(self.dimension, self.largest_total) + 1

    @property
    def active(self) -> bool:
        return self.mode == "active"

    @property
    def quorum(self) -> int:
        return max(self.threshold, self.min_survivors)

    def roster_hash(self) -> bytes:
        return sha256("roster", u32(len(self.roster)), write_records(self.roster))

    def context0(self) -> bytes:
        return sha256(
            "context0",
            text(self.federation.encode()),
            u64(self.number),
            u64(self.round),
            u64(self.dimension),
            u64(self.bound),
            u64(self.largest_total),
            text(self.codec.encode()),
            text(self.mode.encode()),
            u32(self.threshold),
            u32(self.min_survivors),
            u32(self.min_cohort),
            u32(self.colluders),
            text(self.graph.encode()),
            u32(self.degree),
            self.roster_hash(),
            u32(len(self.invited)),
            sha256("invited", u32(len(self.invited)), id_list(self.invited)),
            text(self.model_hash),
            text(self.binding),
        )

    def advert_bytes(self) -> int:
        return 16 + 3 * 32 + (64 if self.active else 0)


def all_adverts(adverts: dict[int, bytes]) -> bytes:
    return sha256("adverts", u32(len(adverts)), write_records(adverts))


def context1(context0: bytes, adverts: bytes) -> bytes:
    return sha256("context1", context0, adverts)


def commitment(context0: bytes, client: int, seed: bytes) -> bytes:
    return sha256("self", context0, u32(client), seed)


def confirmation(context1_: bytes, sharers: list[int], survivors: list[int]) -> bytes:
    return (
        label("confirm")
        + context1_
        + u32(len(sharers))
        + id_list(sharers)
        + u32(len(survivors))
        + id_list(survivors)
    )


def seal_key(shared: bytes, context: bytes, sender: int, receiver: int, keys: tuple[bytes, bytes]) -> bytes:
    return hkdf_sha256(shared, label("seal") + context + u32(sender) + u32(receiver) + keys[0] + keys[1])


def sealed_for(context: bytes, sender: int, receiver: int) -> bytes:
    return label("sealed") + context + u32(sender) + u32(receiver)


def pair_seed(shared: bytes, context: bytes, ids: tuple[int, int], keys: tuple[bytes, bytes]) -> bytes:
    return hkdf_sha256(shared, label("pair") + context + u32(ids[0]) + u32(ids[1]) + keys[0] + keys[1])


def check_public_key(key: bytes) -> None:
    demand(int.from_bytes(key, "little") < 2**255 - 19, "a canonical public key")
    demand(x25519(bytes(range(32)), key) != bytes(32), "no key of low order")


@dataclass
class Advert:
    sealing: bytes
    masking: bytes
    commitment: bytes


def read_advert(data: bytes, client: int, session: Session) -> Advert:
    demand(len(data) == session.advert_bytes(), "an advert's length")
    context0 = session.context0()
    demand(data[:16] == context0[:16], "an advert of this context")
    advert = Advert(data[16:48], data[48:80], data[80:112])
    check_public_key(advert.sealing)
    check_public_key(advert.masking)
    demand(advert.sealing != advert.masking, "two keys")
    if session.active:
        demand(client in session.roster, "a client of the roster")
        body = label("advertise") + context0 + u32(client) + data[16:112]
        ed25519_verify(session.roster[client], body, data[112:])
    return advert


# --- a client -------------------------------------------------------------------------------------------


class Client:
    """One honest client.

    Its randomness, in this order: sealing key, mask key, self-mask seed (32 bytes each), then coefficients
    that share the seed and those that share the mask key.
    """

    def __init__(self, client: int, session: Session, identity: bytes, values: list[int], rng: Rng) -> None:
        self.me, self.session, self.identity, self.values, self.rng = client, session, identity, values, rng
        self.context0 = session.context0()

    def sign(self, stage: str, body: bytes) -> bytes:
        return ed25519_sign(self.identity, label(stage) + body) if self.session.active else b""

    def advertise(self) -> bytes:
        self.sealing, self.masking, self.seed = self.rng(32), self.rng(32), self.rng(32)
        keys = x25519_public(self.sealing) + x25519_public(self.masking)
        said = keys + commitment(self.context0, self.me, self.seed)
        self.advert = self.context0[:16] + said + self.sign("advertise", self.context0 + u32(self.me) + said)
        return wrap(ADVERT, self.context0[:16], self.advert)

    def make_pairs(self, holders: list[int]) -> dict[int, bytes]:
        """For each holder its share of the seed, then its share of the mask key."""
        points = [holder + 1 for holder in holders]
        seeds = shamir_split(self.seed, self.session.threshold, points, self.rng)
        privates = shamir_split(self.masking, self.session.threshold, points, self.rng)
        return {point - 1: seeds[point] + privates[point] for point in points}

    def share(self, data: bytes) -> bytes:
        session = self.session
        digest, blob = unwrap(data, ADVERTS, self.context0[:16], bytes, bytes)
        records = read_records(blob, session.advert_bytes())
        if session.graph == "complete":
            demand(digest == b"", "no hash of adverts that all are here")
            demand(records.get(self.me) == self.advert, "this client's own advert")
            demand(set(records) <= set(session.invited), "invited clients only")
            demand(len(records) >= session.quorum, "enough clients")
            digest = all_adverts(records)
            del records[self.me]
        else:
            demand(len(digest) == 32 and self.me not in records, "neighbours and a hash")
            demand(len(records) <= session.degree, "no more neighbours than the degree")
        demand(len(records) + 1 >= session.threshold, "enough neighbours")
        self.adverts = {peer: read_advert(advert, peer, session) for peer, advert in records.items()}
        own = [self.advert[16:48], self.advert[48:80]]
        keys = own + [key for advert in self.adverts.values() for key in (advert.sealing, advert.masking)]
        demand(len(set(keys)) == len(keys), "no key twice")

        self.context = context1(self.context0, digest)
        pairs = self.make_pairs(sorted([self.me, *records]))
        self.pairs = {self.me: pairs.pop(self.me)}
        sealed = {}
        for peer, pair in pairs.items():
            key = seal_key(
                x25519(self.sealing, self.adverts[peer].sealing),
                self.context,
                self.me,
                peer,
                (own[0], self.adverts[peer].sealing),
            )
            sealed[peer] = gcm_seal(key, pair, sealed_for(self.context, self.me, peer))
        return wrap(SHARE, self.context[:16], write_records(sealed))

    def packed(self) -> list[int]:
        """The vector before it is masked."""
        return pack(self.values, self.session.largest_total, self.session.bound)

    def masks(self, peers: list[int]) -> list[tuple[int, bytes]]:
        """Signs and seeds of the streams on this client's vector."""
        masks = [(1, self.seed)]
        ours = self.advert[48:80]
        for peer in peers:
            theirs = self.adverts[peer].masking
            shared = x25519(self.masking, theirs)
            if self.me < peer:
                masks.append((1, pair_seed(shared, self.context, (self.me, peer), (ours, theirs))))
            else:
                masks.append((-1, pair_seed(shared, self.context, (peer, self.me), (theirs, ours))))
        return masks

    def upload(self, data: bytes) -> bytes:
        session = self.session
        count, listed, blob = unwrap(data, SHARES, self.context[:16], int, bytes, bytes)
        self.sharers = read_ids(listed)
        sealed = read_records(blob, 33 + 33 + 16)
        demand(self.me in self.sharers, "this client shared")
        demand(
            list(sealed) == [peer for peer in self.sharers if peer != self.me], "shares of all that shared"
        )
        demand(set(sealed) <= set(self.adverts), "sharers that advertised")
        demand(session.graph == "harary" or count == len(self.sharers), "as many as listed")
        demand(count >= session.quorum and len(self.sharers) >= session.threshold, "enough clients")
        for peer, box in sealed.items():
            key = seal_key(
                x25519(self.sealing, self.adverts[peer].sealing),
                self.context,
                peer,
                self.me,
                (self.adverts[peer].sealing, self.advert[16:48]),
            )
            self.pairs[peer] = gcm_open(key, box, sealed_for(self.context, peer, self.me))
            for share in (self.pairs[peer][:33], self.pairs[peer][33:]):
                demand(int.from_bytes(share, "big") < 2**256 + 297, "canonical shares")

        words = self.packed()
        for sign, seed in self.masks(list(sealed)):
            stream = keystream_words(seed, len(words))
            words = [(word + sign * mask) % 2**64 for word, mask in zip(words, stream, strict=True)]
        return wrap(UPLOAD, self.context[:16], words_to_bytes(words))

    def _read_survivors(self, data: bytes) -> None:
        session = self.session
        count, listed = unwrap(data, SURVIVORS, self.context[:16], int, bytes)
        self.survivors = read_ids(listed)
        demand(self.me in self.survivors, "this client survived")
        demand(set(self.survivors) <= set(self.sharers), "survivors that shared")
        demand(session.graph == "harary" or count == len(self.survivors), "as many as listed")
        demand(count >= session.quorum and len(self.survivors) >= session.threshold, "enough survivors")

    def confirm(self, data: bytes) -> bytes:
        demand(self.session.active, "an active session")
        self._read_survivors(data)
        self.confirmed = confirmation(self.context, self.sharers, self.survivors)
        return wrap(CONFIRM, self.context[:16], ed25519_sign(self.identity, self.confirmed))

    def unmask(self, data: bytes) -> bytes:
        if self.session.active:
            (blob,) = unwrap(data, CONFIRMATIONS, self.context[:16], bytes)
            signatures = read_records(blob, 64)
            demand(set(signatures) <= set(self.survivors), "signatures of survivors")
            for peer, signature in signatures.items():
                ed25519_verify(self.session.roster[peer], self.confirmed, signature)
            demand(len({*signatures, self.me}) >= self.session.threshold, "enough signatures")
        else:
            self._read_survivors(data)
        seeds = {peer: self.pairs[peer][:33] for peer in self.sharers if peer in self.survivors}
        keys = {peer: self.pairs[peer][33:] for peer in self.sharers if peer not in self.survivors}
        return wrap(UNMASK, self.context[:16], write_records(seeds), write_records(keys))


# --- the server -----------------------------------------------------------------------------------------


class Server:
    """The honest server. ``receive`` takes a stage's messages, ``close`` ends it and returns what to send."""

    def __init__(self, session: Session, ring: list[int] | None = None) -> None:
        self.session, self.context0 = session, session.context0()
        self.context = b""
        self.stage = ADVERT
        self.expected = list(session.invited)
        self.got: dict[int, list] = {}
        n = len(session.invited)
        self.near = {i: [j for j in session.invited if j != i] for i in session.invited}
        if ring is not None:
            for place, index in enumerate(ring):
                around = [
                    ring[(place + step) % n]
                    for step in range(-(session.degree // 2), session.degree // 2 + 1)
                ]
                self.near[session.invited[index]] = sorted(session.invited[i] for i in around if i != index)

    def _neighbours(self, client: int, among: list[int]) -> list[int]:
        return [i for i in self.near[client] if i in among]

    def receive(self, peer: int, data: bytes) -> None:
        demand(peer in self.expected and peer not in self.got, "a client that is expected")
        session, tag = self.session, self.context[:16]
        if self.stage == ADVERT:
            (advert,) = unwrap(data, ADVERT, self.context0[:16], bytes)
            read_advert(advert, peer, session)
            self.got[peer] = [advert]
        elif self.stage == SHARE:
            (blob,) = unwrap(data, SHARE, tag, bytes)
            sealed = read_records(blob, 82)
            demand(list(sealed) == self._neighbours(peer, list(self.adverts)), "a pair for each neighbour")
            self.got[peer] = [sealed]
        elif self.stage == UPLOAD:
            (blob,) = unwrap(data, UPLOAD, tag, bytes)
            self.got[peer] = [bytes_to_words(blob, session.words)]
        elif self.stage == CONFIRM:
            (signature,) = unwrap(data, CONFIRM, tag, bytes)
            ed25519_verify(
                session.roster[peer], confirmation(self.context, self.sharers, self.survivors), signature
            )
            self.got[peer] = [signature]
        else:
            seeds, keys = (read_records(blob, 33) for blob in unwrap(data, UNMASK, tag, bytes, bytes))
            near = sorted([peer, *self._neighbours(peer, self.sharers)])
            demand(list(seeds) == [i for i in near if i in self.survivors], "a share of each survivor's seed")
            demand(list(keys) == [i for i in near if i not in self.survivors], "a share of each dropped key")
            for share in (*seeds.values(), *keys.values()):
                demand(int.from_bytes(share, "big") < 2**256 + 297, "canonical shares")
            self.got[peer] = [seeds, keys]

    def close(self) -> dict[int, bytes]:
        present, session, tag = sorted(self.got), self.session, self.context[:16]
        least = session.threshold if self.stage in (CONFIRM, UNMASK) else session.quorum
        demand(self.stage == UNMASK or len(present) >= least, "enough clients")
        got, self.got, self.expected = self.got, {}, present
        if self.stage == ADVERT:
            self.stage, self.adverts = SHARE, {i: got[i][0] for i in present}
            digest = all_adverts(self.adverts)
            self.context = context1(self.context0, digest)
            if session.graph == "complete":
                message = wrap(ADVERTS, self.context0[:16], b"", write_records(self.adverts))
                return dict.fromkeys(present, message)
            return {
                i: wrap(
                    ADVERTS,
                    self.context0[:16],
                    digest,
                    write_records({j: self.adverts[j] for j in self._neighbours(i, present)}),
                )
                for i in present
            }
        if self.stage == SHARE:
            self.stage, self.sharers = UPLOAD, present
            return {
                i: wrap(
                    SHARES,
                    tag,
                    len(present),
                    id_list(sorted([i, *self._neighbours(i, present)])),
                    write_records({j: got[j][0][i] for j in self._neighbours(i, present)}),
                )
                for i in present
            }
        if self.stage == UPLOAD:
            self.stage, self.survivors = CONFIRM if session.active else UNMASK, present
            self.total = [sum(column) % 2**64 for column in zip(*(got[i][0] for i in present), strict=True)]
            return {
                i: wrap(SURVIVORS, tag, len(present), id_list(sorted([i, *self._neighbours(i, present)])))
                for i in present
            }
        if self.stage == CONFIRM:
            self.stage = UNMASK
            message = wrap(
                CONFIRMATIONS, tag, write_records({i: got[i][0] for i in present[: session.threshold]})
            )
            return dict.fromkeys(present, message)
        self._open(got)
        return {}

    def _combine(self, got: dict[int, list], owner: int, which: int) -> bytes:
        shares = {holder + 1: got[holder][which][owner] for holder in got if owner in got[holder][which]}
        return shamir_combine(shares, self.session.threshold)

    def _add(self, sign: int, seed: bytes) -> None:
        stream = keystream_words(seed, len(self.total))
        self.total = [(word + sign * mask) % 2**64 for word, mask in zip(self.total, stream, strict=True)]

    def _open(self, got: dict[int, list]) -> None:
        session = self.session
        adverts = {i: read_advert(advert, i, session) for i, advert in self.adverts.items()}
        for owner in self.sharers:
            alive = self._neighbours(owner, self.survivors)
            if owner in self.survivors:
                seed = self._combine(got, owner, 0)
                demand(
                    commitment(self.context0, owner, seed) == adverts[owner].commitment, "the committed seed"
                )
                self._add(-1, seed)
            elif alive:
                private = self._combine(got, owner, 1)
                ours = x25519_public(private)
                demand(ours == adverts[owner].masking, "the advertised key")
                for peer in alive:
                    theirs = adverts[peer].masking
                    shared = x25519(private, theirs)
                    if owner < peer:  # the survivor took the mask away
                        self._add(1, pair_seed(shared, self.context, (owner, peer), (ours, theirs)))
                    else:
                        self._add(-1, pair_seed(shared, self.context, (peer, owner), (theirs, ours)))
        self.counts = unpack(
            self.total, session.dimension, session.largest_total, session.bound, len(self.survivors)
        )
        self.opened = wrap(OPENED, self.context[:16], len(self.survivors), words_to_bytes(self.total))
