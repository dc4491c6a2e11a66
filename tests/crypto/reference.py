"""The secure sum, a second time: slow and obvious, in Python integers and byte strings.

Written from the protocol's description and wire format, to disagree with `prism_crypto` where that has a
mistake. One class plays a client and one the server; a method a stage, bytes in and bytes out. Every check
that a party owes the others is a `demand`; a failed one raises `Refused`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import reference_kem as kem768
from reference_primitives import (
    BASE,
    FIELD,
    ORDER,
    P25519,
    Point,
    Refused,
    check_owner,
    demand,
    ed25519_sign,
    ed25519_verify,
    edwards_add,
    edwards_decode,
    edwards_encode,
    edwards_multiply,
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
    return b"prism-crypto/v2/" + usage.encode() + b"\0"


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


def array(items: Sequence[int | bytes]) -> bytes:
    """A msgpack array of integers and of what is encoded already."""
    head = bytes([0x90 | len(items)]) if len(items) < 16 else b"\xdc" + struct.pack(">H", len(items))
    return head + b"".join(item if isinstance(item, bytes) else integer(item) for item in items)


def integer(value: int) -> bytes:
    """In its shortest form."""
    if value < 128:
        return bytes([value])
    sizes = ((2**8, b"\xcc", ">B"), (2**16, b"\xcd", ">H"), (2**32, b"\xce", ">I"), (2**64, b"\xcf", ">Q"))
    _, head, form = next(size for size in sizes if value < size[0])
    return head + struct.pack(form, value)


def wrap(kind: int, tag: bytes, *fields: int | bytes) -> bytes:
    """A message: the msgpack array [kind, 2, tag, fields...], everything in its shortest form."""
    out = bytes([0x90 | 3 + len(fields)])
    for value in (kind, 2, tag, *fields):
        if isinstance(value, bytes):
            size = len(value)
            head = (b"\xc4", ">B") if size < 2**8 else (b"\xc5", ">H") if size < 2**16 else (b"\xc6", ">I")
            out += head[0] + struct.pack(head[1], size) + value
        else:
            out += integer(value)
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
    demand(values[:3] == [kind, 2, tag], "this kind of message, this version, this context")
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
    suite: str = "x25519"
    roster: dict[int, bytes] = field(default_factory=dict)
    exclusions: bytes = sha256("excluded", u32(0))
    model_hash: bytes = b""
    binding: bytes = b""
    parts: list[tuple[int, int]] | None = None

    @property
    def largest_total(self) -> int:
        return len(self.invited) * self.bound

    @property
    def cut(self) -> list[tuple[int, int]]:
        """Length and bound of what is packed apart."""
        return self.parts or [(self.dimension, self.bound)]

    @property
    def words(self) -> int:
        return sum(word_count(length, len(self.invited) * bound) + 2 for length, bound in self.cut)

    def pack(self, values: list[int]) -> list[int]:
        words, start = [], 0
        for length, bound in self.cut:
            words += pack(values[start : start + length], len(self.invited) * bound, bound)
            start += length
        return words

    def unpack(self, words: list[int], survivors: int) -> list[int]:
        counts, start = [], 0
        for length, bound in self.cut:
            total = len(self.invited) * bound
            end = start + word_count(length, total) + 2
            counts += unpack(words[start:end], length, total, bound, survivors)
            start = end
        return counts

    @property
    def spare(self) -> int:
        return max(1, len(self.invited) - self.threshold)

    @property
    def active(self) -> bool:
        return self.mode == "active"

    @property
    def quorum(self) -> int:
        return max(self.threshold, self.min_survivors)

    @property
    def confirmations(self) -> int:
        return self.quorum if self.hybrid else self.threshold

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
            text(self.suite.encode()),
            self.roster_hash(),
            u32(len(self.invited)),
            sha256("invited", u32(len(self.invited)), id_list(self.invited)),
            self.exclusions,
            text(self.model_hash),
            text(self.binding),
            *([] if self.parts is None else [text(array([array(part) for part in self.parts]))]),
        )

    @property
    def hybrid(self) -> bool:
        return self.suite == "x25519+ml-kem-768"

    def advert_bytes(self) -> int:
        return 16 + 3 * 32 + (2 * 1184 if self.hybrid else 0) + (64 + 64 if self.active else 0)

    def dealt_bytes(self) -> int:
        if not self.hybrid:
            return 2 * (33 + 16)
        return 2 * (33 + 16) + 2 * 1088 + 3 * 32 + (64 if self.active else 0)

    def complaint_bytes(self) -> int:
        return 96 + (32 if self.hybrid else 0)


def all_adverts(adverts: dict[int, bytes]) -> bytes:
    return sha256("adverts", u32(len(adverts)), write_records(adverts))


def view(adverts: dict[int, bytes]) -> bytes:
    """On chosen graphs: the hash over the hashes of the adverts that somebody saw."""
    hashed = {i: hashlib.sha256(advert).digest() for i, advert in adverts.items()}
    return sha256("view", write_records(dict(sorted(hashed.items()))))


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


def seal_keys(
    shared: bytes, context: bytes, sender: int, receiver: int, keys: tuple[bytes, bytes]
) -> list[bytes]:
    """One for the share of the seed, one for the share of the mask key."""
    ends = context + u32(sender) + u32(receiver) + keys[0] + keys[1]
    return [hkdf_sha256(shared, label(usage) + ends) for usage in ("seal-seed", "seal-key")]


def seal_pair(both: list[bytes], context: bytes, sender: int, receiver: int, pair: bytes) -> bytes:
    associated = sealed_for(context, sender, receiver)
    return gcm_seal(both[0], pair[:33], associated) + gcm_seal(both[1], pair[33:], associated)


def open_share(key: bytes, context: bytes, sender: int, receiver: int, sealed: bytes) -> bytes:
    share = gcm_open(key, sealed, sealed_for(context, sender, receiver))
    demand(len(share) == 33 and int.from_bytes(share, "big") < FIELD, "a canonical share")
    return share


def polynomial(secret: bytes, context: bytes, usage: str) -> Rng:
    """The randomness of one sharing polynomial."""
    content, place = hashlib.shake_256(label(usage) + context + secret), 0

    def read(count: int) -> bytes:
        nonlocal place
        place += count
        return content.digest(place)[-count:] if count else b""

    return read


def hashes(*contents: bytes) -> bytes:
    return b"".join(hashlib.sha256(content).digest() for content in contents)


# --- what two keys agree on, proved ---------------------------------------------------------------------


def edwards_point(public: bytes) -> Point:
    """The point of even x with this u-coordinate (RFC 7748, section 4.1)."""
    u = int.from_bytes(public, "little")
    y = (u - 1) * pow(u + 1, -1, P25519) % P25519
    return edwards_decode(y.to_bytes(32, "little"))


def agreement_challenge(context: bytes, *points: bytes) -> int:
    hashed = hashlib.sha512(label("agreement") + context + b"".join(points)).digest()
    return int.from_bytes(hashed, "little") % ORDER


def prove_agreement(private: bytes, ours: bytes, theirs: bytes, context: bytes) -> bytes:
    scalar = (int.from_bytes(private, "little") & ~7 & (2**255 - 1) | 2**254) // 8
    base, other = edwards_multiply(8, BASE), edwards_multiply(8, edwards_point(theirs))
    if edwards_encode(edwards_multiply(scalar, base)) != edwards_encode(edwards_point(ours)):
        scalar = -scalar
    scalar %= ORDER
    shared = edwards_encode(edwards_multiply(scalar, other))
    drawn = hashlib.sha512(label("agreement-nonce") + private + theirs + context).digest()
    nonce = int.from_bytes(drawn, "little") % ORDER
    commitments = [edwards_encode(edwards_multiply(nonce, point)) for point in (base, other)]
    challenge = agreement_challenge(context, ours, theirs, shared, *commitments)
    answer = (nonce + challenge * scalar) % ORDER
    return shared + challenge.to_bytes(32, "little") + answer.to_bytes(32, "little")


def proved_agreement(proof: bytes, ours: bytes, theirs: bytes, context: bytes) -> bytes:
    challenge, answer = (int.from_bytes(proof[i : i + 32], "little") for i in (32, 64))
    demand(max(challenge, answer) < ORDER, "reduced scalars")
    own, shared = edwards_point(ours), edwards_decode(proof[:32])
    neutral = edwards_encode((0, 1, 1, 0))
    for point in (own, shared):
        demand(edwards_encode(edwards_multiply(ORDER, point)) == neutral, "a point of prime order")
        demand(edwards_encode(point) != neutral, "a point of prime order")
    pairs = ((edwards_multiply(8, BASE), own), (edwards_multiply(8, edwards_point(theirs)), shared))
    commitments = [
        edwards_encode(
            edwards_add(edwards_multiply(answer, base), edwards_multiply(ORDER - challenge, image))
        )
        for base, image in pairs
    ]
    expected = agreement_challenge(context, ours, theirs, proof[:32], *commitments)
    demand(challenge == expected, "a proof that holds")
    y = int.from_bytes(proof[:32], "little") % 2**255
    return ((1 + y) * pow(1 - y, -1, P25519) % P25519).to_bytes(32, "little")


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
    owner: bytes = b""
    kem: tuple[bytes, ...] = ()


def read_advert(data: bytes, client: int, session: Session) -> Advert:
    demand(len(data) == session.advert_bytes(), "an advert's length")
    context0 = session.context0()
    demand(data[:16] == context0[:16], "an advert of this context")
    kem = (data[112:1296], data[1296:2480]) if session.hybrid else ()
    advert = Advert(data[16:48], data[48:80], data[80:112], data[112 + 1184 * len(kem) :][:64], kem)
    check_public_key(advert.sealing)
    check_public_key(advert.masking)
    for key in kem:
        kem768.check_key(key)
    demand(len({advert.sealing, advert.masking, *kem}) == 2 + len(kem), "different keys")
    if session.active:
        demand(client in session.roster, "a client of the roster")
        body = label("advertise") + context0 + u32(client) + data[16:-64]
        ed25519_verify(session.roster[client], body, data[-64:])
    return advert


def check_record(record: bytes, context: bytes, sender: int, receiver: int, key: bytes) -> None:
    """That the owner of a sealing key has signed what it dealt to one holder."""
    body = label("record") + kem768.pair(context, sender, receiver) + hashes(record[:2370])
    check_owner(key, body, record[2370:])


def part_of(sealed: bytes, kem_seed: bytes, context: bytes, sender: int, receiver: int) -> bytes:
    """The part of a mask's seed that came with sealed shares."""
    _, second, under, _, signed = (
        sealed[98:1186],
        sealed[1186:2274],
        sealed[2274:2306],
        sealed[2306:2338],
        sealed[2338:2370],
    )
    secret, where = kem768.decapsulate(kem_seed, second), kem768.pair(context, sender, receiver)
    part = kem768.wrapped(under, secret, where, second)
    demand(kem768.hashed("part-hash", context, sender, receiver, part) == signed, "the part that was signed")
    return part


def sealing_scalar(owner: bytes) -> bytes:
    """The scalar of an Ed25519 key, before its bits are set (RFC 8032, section 5.1.5)."""
    return hashlib.sha512(owner).digest()[:32]


# --- a client -------------------------------------------------------------------------------------------


class Client:
    """One honest client.

    Its randomness, 32 bytes each: sealing key, mask key, self-mask seed, what the polynomials are made of.
    """

    def __init__(self, client: int, session: Session, identity: bytes, values: list[int], rng: Rng) -> None:
        self.me, self.session, self.identity, self.values, self.rng = client, session, identity, values, rng
        self.context0 = session.context0()

    def sign(self, stage: str, body: bytes) -> bytes:
        return ed25519_sign(self.identity, label(stage) + body) if self.session.active else b""

    def sign_by_key(self, usage: str, body: bytes) -> bytes:
        """Under the sealing key, which is an Ed25519 key's scalar."""
        return ed25519_sign(self.sealing_seed, label(usage) + body) if self.session.active else b""

    def advertise(self) -> bytes:
        said = self.make_keys()
        if self.session.active:
            said += self.owner
        self.advert = self.context0[:16] + said + self.sign("advertise", self.context0 + u32(self.me) + said)
        return wrap(ADVERT, self.context0[:16], self.advert)

    def make_keys(self) -> bytes:
        """Keys and commitment; the sealing key is the scalar of an Ed25519 key, which proves whose it is."""
        self.sealing_seed, self.sealing_kem, kem = self.rng(32), b"", b""
        if self.session.hybrid:
            self.sealing_kem = self.rng(64)
        self.mask_secret, self.seed, self.dealing = (self.rng(32) for _ in range(3))
        self.sealing, self.masking = sealing_scalar(self.sealing_seed), self.mask_secret
        self.dealt: dict[int, list[bytes]] = {}
        if self.session.hybrid:
            self.masking = kem768.mask_key(self.mask_secret)
            self.mask_kem = kem768.mask_kem_seed(self.mask_secret)
            kem = kem768.generate(self.sealing_kem)[0] + kem768.generate(self.mask_kem)[0]
        self.owner = self.sign_by_key("owner", self.context0 + u32(self.me))
        keys = x25519_public(self.sealing) + x25519_public(self.masking)
        return keys + commitment(self.context0, self.me, self.seed) + kem

    def dealing_context(self) -> bytes:
        return self.context

    def make_pairs(self, holders: list[int]) -> dict[int, bytes]:
        """For each holder its share of the seed, then its share of the mask key."""
        points = [holder + 1 for holder in holders]
        shares = [
            shamir_split(
                secret,
                self.session.threshold,
                points,
                polynomial(self.dealing, self.dealing_context(), usage),
            )
            for secret, usage in ((self.seed, "seed"), (self.mask_secret, "key"))
        ]
        return {point - 1: shares[0][point] + shares[1][point] for point in points}

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
        if session.hybrid:
            own += [self.advert[112:1296], self.advert[1296:2480]]
        self.kem = {self.me: own[2:]} | {peer: list(advert.kem) for peer, advert in self.adverts.items()}
        keys = own + [
            key for advert in self.adverts.values() for key in (advert.sealing, advert.masking, *advert.kem)
        ]
        demand(len(set(keys)) == len(keys), "no key twice")

        self.context = context1(self.context0, digest)
        holders = {self.me: own[0]} | {peer: advert.sealing for peer, advert in self.adverts.items()}
        sealed = {peer: self.sealed(peer, pair) for peer, pair in self.make_pairs(sorted(holders)).items()}
        dealt = write_records(self.signed_records(self.deal(sealed)))
        signature = self.sign_by_key("dealing", self.context + u32(self.me) + hashes(dealt))
        return wrap(SHARE, self.context[:16], dealt, signature)

    def signed_records(self, dealt: dict[int, bytes]) -> dict[int, bytes]:
        """Hybrid: each record with a signature over it, for its receiver, who sees no other."""
        if not (self.session.hybrid and self.session.active):
            return dealt
        return {
            peer: record
            + self.sign_by_key("record", kem768.pair(self.between(peer), self.me, peer) + hashes(record))
            for peer, record in dealt.items()
        }

    def check_records(self, sealed: dict[int, bytes], adverts: dict[int, Advert]) -> None:
        """That each dealer has signed the record that came."""
        if not (self.session.hybrid and self.session.active):
            return
        for peer, record in sealed.items():
            key = self.advert[16:48] if peer == self.me else adverts[peer].sealing
            check_record(record, self.between(peer), peer, self.me, key)

    def sealed(self, peer: int, pair: bytes) -> bytes:
        """A record for one holder."""
        beside = b"".join(self.encapsulated(peer))
        both = self.keys_to(self.me, peer, beside)
        return seal_pair(both, self.between(peer), self.me, peer, pair) + beside

    def between(self, peer: int) -> bytes:
        """The context of what this client and a peer agree on."""
        return self.context

    def encapsulated(self, peer: int) -> list[bytes]:
        """Two ciphertexts, this client's part under the second's secret, hashes of secret and part."""
        if not self.session.hybrid:
            return []
        where = (self.between(peer), self.me, peer)
        (secret, first), (other, second) = (kem768.encapsulate(key, self.coins(32)) for key in self.kem[peer])
        self.dealt[peer] = [secret]
        part = kem768.part(self.mask_secret, *where)
        return [
            first,
            second,
            kem768.wrapped(part, other, kem768.pair(*where), second),
            kem768.hashed("secret-hash", *where, secret),
            kem768.hashed("part-hash", *where, part),
        ]

    coins: Rng = staticmethod(os.urandom)
    """Randomness of encapsulations, which `prism_crypto` leaves to OpenSSL."""

    def keys_to(self, sender: int, receiver: int, beside: bytes = b"") -> list[bytes]:
        """The keys of what goes from one to the other; one of the two is this client, or both are."""
        known = {peer: advert.sealing for peer, advert in self.adverts.items()} | {
            self.me: self.advert[16:48]
        }
        return self.seal_keys(sender, receiver, known, beside)

    def seal_keys(self, sender: int, receiver: int, known: dict[int, bytes], beside: bytes) -> list[bytes]:
        other = receiver if sender == self.me else sender
        shared, keys = x25519(self.sealing, known[other]), (known[sender], known[receiver])
        if not self.session.hybrid:
            return seal_keys(shared, self.between(other), sender, receiver, keys)
        if sender == self.me:
            secret = self.dealt[receiver][0]
        else:
            secret = kem768.decapsulate(self.sealing_kem, beside[:1088])
            shown = kem768.hashed("secret-hash", self.between(other), sender, receiver, secret)
            demand(shown == beside[2208:2240], "the secret that was signed")
        return kem768.seal_keys(shared, secret, beside[:1088], self.between(other), (sender, receiver), keys)

    def deal(self, sealed: dict[int, bytes]) -> dict[int, bytes]:
        """What it sends of them; for cheats to change."""
        return sealed

    def packed(self) -> list[int]:
        """The vector before it is masked."""
        return self.session.pack(self.values)

    def masks(self, peers: list[int]) -> list[tuple[int, bytes]]:
        """Signs and seeds of the streams on this client's vector."""
        masks = [(1, self.seed)]
        ours = self.advert[48:80]
        for peer in peers:
            theirs = self.adverts[peer].masking
            shared = x25519(self.masking, theirs)
            if self.session.hybrid:
                masks.append((1 if self.me < peer else -1, self.hybrid_seed(peer, shared, ours, theirs)))
            elif self.me < peer:
                masks.append((1, pair_seed(shared, self.context, (self.me, peer), (ours, theirs))))
            else:
                masks.append((-1, pair_seed(shared, self.context, (peer, self.me), (theirs, ours))))
        return masks

    def hybrid_seed(self, peer: int, shared: bytes, ours: bytes, theirs: bytes) -> bytes:
        """The seed of a mask, of the parts of those of the two who deal to the other."""
        context, low, high = self.between(peer), *sorted((self.me, peer))
        parts = {self.me: b"", peer: b""}
        if peer in self.dealt:
            parts[self.me] = kem768.part(self.mask_secret, context, self.me, peer)
        if peer in self.sealed_for_me:
            parts[peer] = part_of(self.sealed_for_me[peer], self.mask_kem, context, peer, self.me)
        keys = (ours, theirs) if self.me == low else (theirs, ours)
        return kem768.pair_seed(shared, [parts[low], parts[high]], context, (low, high), keys)

    def upload(self, data: bytes) -> bytes:
        session = self.session
        count, listed, blob = unwrap(data, SHARES, self.context[:16], int, bytes, bytes)
        self.sharers = read_ids(listed)
        self.received, sealed = blob, read_records(blob, session.dealt_bytes())
        self.sealed_for_me = sealed
        demand(self.me in self.sharers, "this client shared")
        demand(list(sealed) == self.sharers, "shares of all that shared")
        demand(set(sealed) <= {*self.adverts, self.me}, "sharers that advertised")
        demand(session.graph == "harary" or count == len(self.sharers), "as many as listed")
        demand(count >= session.quorum and len(self.sharers) >= session.threshold, "enough clients")
        self.check_records(sealed, self.adverts)
        self.keys: dict[int, list[bytes]] = {}
        self.unopened: dict[int, bytes] = {}
        for peer, box in sealed.items():
            try:
                both = self.keys_to(peer, self.me, box[98:])
                for key, half in zip(both, (box[:49], box[49:98]), strict=True):
                    open_share(key, self.context, peer, self.me, half)
                self.keys[peer] = both
            except Refused:
                demand(session.active and peer != self.me, "a share that opens")
                self.unopened[peer] = box
        demand(len(self.unopened) <= session.spare, "enough shares that open")

        words = self.packed()
        for sign, seed in self.masks([peer for peer in sealed if peer != self.me]):
            stream = keystream_words(seed, len(words))
            words = [(word + sign * mask) % 2**64 for word, mask in zip(words, stream, strict=True)]
        content, lacking = words_to_bytes(words), id_list(sorted(self.unopened))
        signature = self.sign("upload", self.context + u32(self.me) + hashes(content) + lacking)
        return wrap(UPLOAD, self.context[:16], content, lacking, signature)

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
            blob, appeals = unwrap(data, CONFIRMATIONS, self.context[:16], bytes, bytes)
            signatures = read_records(blob, 64)
            demand(set(signatures) <= set(self.survivors), "signatures of survivors")
            for peer, signature in signatures.items():
                ed25519_verify(self.session.roster[peer], self.confirmed, signature)
            demand(len({*signatures, self.me}) >= self.session.confirmations, "enough signatures")
            self._read_appeals(appeals)
        else:
            self._read_survivors(data)
        fields = [
            write_records({peer: both[0] for peer, both in self.keys.items() if peer in self.survivors}),
            write_records({peer: both[1] for peer, both in self.keys.items() if peer not in self.survivors}),
            write_records({peer: self.complain(peer) for peer in self.unopened}),
        ]
        body = self.context + u32(self.me) + hashes(self.received, *fields)
        return wrap(UNMASK, self.context[:16], *fields, self.sign("unmask", body))

    def agreement(self, peer: int) -> bytes:
        advert = self.adverts[peer]
        check_owner(advert.sealing, label("owner") + self.context0 + u32(peer), advert.owner)
        return prove_agreement(self.sealing, self.advert[16:48], advert.sealing, self.between(peer))

    def complain(self, peer: int) -> bytes:
        proof = self.agreement(peer)
        if not self.session.hybrid:
            return proof
        beside = self.unopened[peer][98:]
        secret = kem768.decapsulate(self.sealing_kem, beside[:1088])
        shown = kem768.hashed("secret-hash", self.between(peer), peer, self.me, secret)
        return proof + secret if shown == beside[2208:2240] else bytes(128)

    def _read_appeals(self, blob: bytes) -> None:
        for peer in sorted(self.unopened):
            demand(blob[:4] == u32(peer), "what was signed by each whose shares did not open")
            end = 72 + int.from_bytes(blob[68:72], "big")
            dealt = blob[72:end]
            body = label("dealing") + self.context + u32(peer) + hashes(dealt)
            check_owner(self.adverts[peer].sealing, body, blob[4:68])
            demand(
                read_records(dealt, self.session.dealt_bytes()).get(self.me) == self.unopened[peer],
                "what came was signed",
            )
            blob = blob[end:]
        demand(blob == b"", "nothing else")


def judge(
    context: bytes,
    holder: int,
    dealer: int,
    sealed: bytes,
    proof: bytes,
    adverts: dict[int, bytes],
    hybrid: bool,
) -> set[int]:
    """Either what was dealt does not open, and the dealer is to blame, or whoever says so; or nobody."""
    keys = (adverts[dealer][16:48], adverts[holder][16:48])
    secret = proof[96:]
    if hybrid:
        shown = kem768.hashed("secret-hash", context, dealer, holder, secret)
        if not any(secret) or shown != sealed[98:][2208:2240]:
            return set()  # one of the two
    try:
        shared = proved_agreement(proof[:96], keys[1], keys[0], context)
    except Refused:
        return {holder}
    both = seal_keys(shared, context, dealer, holder, keys)
    if hybrid:
        both = kem768.seal_keys(shared, secret, sealed[98:1186], context, (dealer, holder), keys)
    try:
        for key, half in zip(both, (sealed[:49], sealed[49:98]), strict=True):
            open_share(key, context, dealer, holder, half)
        return {holder}
    except Refused:
        return {dealer}


# --- the server -----------------------------------------------------------------------------------------


class Server:
    """The honest server. ``receive`` takes a stage's messages, ``close`` ends it and returns what to send."""

    def __init__(self, session: Session, ring: list[int] | None = None) -> None:
        self.session, self.context0 = session, session.context0()
        self.context = b""
        self.stage = ADVERT
        self.expected = list(session.invited)
        self.got: dict[int, list] = {}
        self.blamed: set[int] = set()
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
            blob, signature = unwrap(data, SHARE, tag, bytes, bytes)
            self._verify(peer, "dealing", hashes(blob), signature)
            sealed = read_records(blob, session.dealt_bytes())
            holders = sorted([peer, *self._neighbours(peer, list(self.adverts))])
            demand(list(sealed) == holders, "a pair for the sender and each neighbour")
            for holder, record in sealed.items() if session.hybrid and session.active else ():
                try:
                    check_record(record, self.context, peer, holder, self.adverts[peer][16:48])
                except Refused:
                    self.blamed.add(peer)
                    raise
            self.got[peer] = [sealed, signature, blob]
        elif self.stage == UPLOAD:
            blob, lacking, signature = unwrap(data, UPLOAD, tag, bytes, bytes, bytes)
            self._verify(peer, "upload", hashes(blob) + lacking, signature)
            unopened = read_ids(lacking)
            spare = session.spare if session.active else 0
            demand(len(unopened) <= spare, "not too many that do not open")
            demand(set(unopened) <= set(self.sharers) - {peer}, "clients that shared")
            self.got[peer] = [bytes_to_words(blob, session.words), unopened]
        elif self.stage == CONFIRM:
            (signature,) = unwrap(data, CONFIRM, tag, bytes)
            ed25519_verify(
                session.roster[peer], confirmation(self.context, self.sharers, self.survivors), signature
            )
            self.got[peer] = [signature]
        else:
            *fields, signature = unwrap(data, UNMASK, tag, bytes, bytes, bytes, bytes)
            self._verify(peer, "unmask", hashes(self.received[peer], *fields), signature)
            widths = (32, 32, session.complaint_bytes())
            records = [read_records(blob, width) for blob, width in zip(fields, widths, strict=True)]
            near = sorted([peer, *self._neighbours(peer, self.sharers)])
            able = [i for i in near if i not in self.unopened[peer]]
            demand(list(records[0]) == [i for i in able if i in self.survivors], "keys to survivors' seeds")
            demand(list(records[1]) == [i for i in able if i not in self.survivors], "keys to dropped keys")
            demand(list(records[2]) == self.unopened[peer], "a proof for each complaint")
            self.got[peer] = [*map(self._opened_shares(peer), enumerate(records[:2]))]
            for dealer, proof in records[2].items():
                sealed, context = self.dealt[dealer][0][peer], self.context
                self.blamed |= judge(context, peer, dealer, sealed, proof, self.adverts, session.hybrid)

    def _verify(self, peer: int, stage: str, body: bytes, signature: bytes) -> None:
        said = label(stage) + self.context + u32(peer) + body
        if self.session.active and stage == "dealing":
            check_owner(self.adverts[peer][16:48], said, signature)
        elif self.session.active:
            ed25519_verify(self.session.roster[peer], said, signature)
        else:
            demand(signature == b"", "no signature")

    def _opened_shares(self, peer: int) -> Callable[[tuple[int, dict[int, bytes]]], dict[int, bytes]]:
        def opened(given: tuple[int, dict[int, bytes]]) -> dict[int, bytes]:
            shares = {}
            for owner, key in given[1].items():
                half = self.dealt[owner][0][peer][49 * given[0] :][:49]
                try:
                    shares[owner] = open_share(key, self.context, owner, peer, half)
                except Refused:
                    self.blamed.add(peer)
            return shares

        return opened

    def close(self) -> dict[int, bytes]:
        present, session, tag = sorted(self.got), self.session, self.context[:16]
        least = session.confirmations if self.stage == CONFIRM else session.quorum
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
            self.stage, self.sharers, self.dealt = UPLOAD, present, got
            near = {i: sorted([i, *self._neighbours(i, present)]) for i in present}
            self.received = {i: write_records({j: got[j][0][i] for j in near[i]}) for i in present}
            return {i: wrap(SHARES, tag, len(present), id_list(near[i]), self.received[i]) for i in present}
        if self.stage == UPLOAD:
            self.stage, self.survivors = CONFIRM if session.active else UNMASK, present
            self.unopened = {i: got[i][1] for i in present}
            self.total = [sum(column) % 2**64 for column in zip(*(got[i][0] for i in present), strict=True)]
            return {
                i: wrap(SURVIVORS, tag, len(present), id_list(sorted([i, *self._neighbours(i, present)])))
                for i in present
            }
        if self.stage == CONFIRM:
            self.stage = UNMASK
            signatures = write_records({i: got[i][0] for i in present[: session.confirmations]})
            return {
                i: wrap(
                    CONFIRMATIONS,
                    tag,
                    signatures,
                    b"".join(u32(j) + self.dealt[j][1] + text(self.dealt[j][2]) for j in self.unopened[i]),
                )
                for i in present
            }
        self._open(got)
        return {}

    def _combine(self, got: dict[int, list], owner: int, which: int, right: Callable[[bytes], bool]) -> bytes:
        """The secret that is right for some t of the shares; all of them must be on its polynomial."""
        shares = {holder + 1: got[holder][which][owner] for holder in got if owner in got[holder][which]}
        threshold, found = self.session.threshold, []
        demand(len(shares) >= threshold, "enough shares")
        for chosen in combinations(sorted(shares), threshold):
            try:
                secret = shamir_combine({x: shares[x] for x in chosen}, threshold)
                demand(right(secret), "the secret that was advertised")
                found.append(secret)
            except Refused:
                self.blamed.add(owner)
        demand(len(found) > 0, "the secret that was advertised")
        return found[0]

    def _right_root(self, owner: int, advert: Advert) -> Callable[[bytes], bool]:
        def right(secret: bytes) -> bool:
            if not self.session.hybrid:
                return x25519_public(secret) == advert.masking
            public = kem768.generate(kem768.mask_kem_seed(secret))[0]
            parts = all(
                kem768.hashed("part-hash", self.context, owner, holder, part) == sealed[2338:2370]
                for holder, sealed in self.dealt[owner][0].items()
                if (part := kem768.part(secret, self.context, owner, holder))
            )
            return x25519_public(kem768.mask_key(secret)) == advert.masking and (
                public == advert.kem[1] and parts
            )

        return right

    def _hybrid_seed(
        self, owner: int, peer: int, root: bytes, shared: bytes, adverts: dict[int, Advert]
    ) -> bytes:
        """Seed of the mask of a dropped client and one that is left, which is blamed for a wrong part."""
        kem, sealed = kem768.mask_kem_seed(root), self.dealt[peer][0][owner]
        try:
            theirs = part_of(sealed, kem, self.context, peer, owner)
        except Refused:
            self.blamed.add(peer)
            raise
        parts = {owner: kem768.part(root, self.context, owner, peer), peer: theirs}
        low, high = sorted(parts)
        keys = (adverts[low].masking, adverts[high].masking)
        return kem768.pair_seed(shared, [parts[low], parts[high]], self.context, (low, high), keys)

    def _add(self, sign: int, seed: bytes) -> None:
        stream = keystream_words(seed, len(self.total))
        self.total = [(word + sign * mask) % 2**64 for word, mask in zip(self.total, stream, strict=True)]

    def _open(self, got: dict[int, list]) -> None:
        session = self.session
        adverts = {i: read_advert(advert, i, session) for i, advert in self.adverts.items()}
        for owner in self.sharers:
            alive = self._neighbours(owner, self.survivors)
            if owner in self.survivors:
                committed = adverts[owner].commitment
                seed = self._combine(
                    got, owner, 0, lambda b, i=owner, c=committed: commitment(self.context0, i, b) == c
                )
                self._add(-1, seed)
            elif alive:
                ours = adverts[owner].masking
                right = self._right_root(owner, adverts[owner])
                private = root = self._combine(got, owner, 1, right)
                if session.hybrid:
                    private = kem768.mask_key(root)
                for peer in alive:
                    theirs = adverts[peer].masking
                    shared = x25519(private, theirs)
                    if session.hybrid:
                        seed = self._hybrid_seed(owner, peer, root, shared, adverts)
                        self._add(1 if owner < peer else -1, seed)
                    elif owner < peer:  # the survivor took the mask away
                        self._add(1, pair_seed(shared, self.context, (owner, peer), (ours, theirs)))
                    else:
                        self._add(-1, pair_seed(shared, self.context, (peer, owner), (theirs, ours)))
        self.counts = session.unpack(self.total, len(self.survivors))
        self.opened = wrap(OPENED, self.context[:16], len(self.survivors), words_to_bytes(self.total))
