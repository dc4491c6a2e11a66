"""The slow second implementation on graphs that clients choose: what differs there from `reference`.

Written from the page's description, to disagree with `prism_crypto` where that has a mistake.
"""

from __future__ import annotations

import hashlib
from typing import Any

import reference as wire
import reference_kem as kem768
from reference import hashes, id_list, label, read_ids, read_records, u32, unwrap, wrap, write_records
from reference_primitives import (
    check_owner,
    demand,
    ed25519_verify,
    hkdf_sha256,
    keystream_words,
    x25519,
    x25519_public,
)

VOUCHED_UPLOAD, VOUCHED_CONFIRM, VOUCHED_SURVIVORS, VOUCHED_CONFIRMATIONS = 6, 7, 22, 23
DOUBTED_UNMASK, DOUBTED_CONFIRMATIONS = 9, 24


def below(count: int, rng: wire.Rng) -> int:
    """A uniform number: eight bytes, drawn again above the last whole multiple."""
    while True:
        value = int.from_bytes(rng(8), "big")
        if value < 2**64 - 2**64 % count:
            return value % count


def choose(ids: list[int], me: int, degree: int, rng: wire.Rng) -> list[int]:
    """The first places of a shuffled list of the others; the last client stands at this one's place."""
    others = [ids[-1] if i == me else i for i in ids[:-1]]
    for place in range(degree):
        other = place + below(len(others) - place, rng)
        others[place], others[other] = others[other], others[place]
    return sorted(others[:degree])


def chosen(advert: bytes) -> list[int]:
    """A choice has at most 512 clients: an advert with ML-KEM keys is longer than any without."""
    return read_ids(advert[176 + (2 * 1184 if len(advert) >= 240 + 2 * 1184 else 0) : -64])


def advert_bytes(session: wire.Session) -> int:
    return session.advert_bytes() + 4 * session.degree


def between(context0: bytes, adverts: dict[int, bytes], first: int, second: int) -> bytes:
    pair = {i: adverts[i] for i in (first, second)}
    return wire.context1(context0, wire.view(pair))


def voucher(shared: bytes, usage: str, context: bytes, sender: int, receiver: int) -> bytes:
    return hkdf_sha256(shared, label(usage) + context + u32(sender) + u32(receiver))[:16]


def read_advert(data: bytes, client: int, session: wire.Session) -> wire.Advert:
    demand(len(data) == advert_bytes(session), "an advert's length")
    context0 = session.context0()
    demand(data[:16] == context0[:16], "an advert of this context")
    kem = (data[112:1296], data[1296:2480]) if session.hybrid else ()
    owner = data[112 + 1184 * len(kem) :][:64]
    advert = wire.Advert(data[16:48], data[48:80], data[80:112], owner, kem)
    wire.check_public_key(advert.sealing)
    wire.check_public_key(advert.masking)
    for key in kem:
        kem768.check_key(key)
    demand(len({advert.sealing, advert.masking, *kem}) == 2 + len(kem), "different keys")
    demand(set(chosen(data)) <= set(session.invited) - {client}, "a choice of others that are invited")
    ed25519_verify(
        session.roster[client], label("advertise") + context0 + u32(client) + data[16:-64], data[-64:]
    )
    return advert


def read_texts(blob: bytes, signed: bool) -> dict[int, tuple[bytes, bytes]]:
    """By id what follows it: a signature or nothing, and as many bytes as the next four say."""
    found, ids, width = {}, [], 64 if signed else 0
    while blob:
        head, size = blob[: 8 + width], int.from_bytes(blob[4 + width : 8 + width], "big")
        demand(len(blob) >= 8 + width + size, "as many bytes as are said")
        ids.append(int.from_bytes(head[:4], "big"))
        found[ids[-1]] = head[4 : 4 + width], blob[8 + width :][:size]
        blob = blob[8 + width + size :]
    demand(ids == sorted(set(ids)), "increasing ids")
    return found


class Client(wire.Client):
    """One honest client. After its keys and secrets it draws its choice."""

    def advertise(self) -> bytes:
        keys = self.make_keys()
        self.choice = choose(self.session.invited, self.me, self.session.degree, self.rng)
        said = keys + self.owner + id_list(self.choice)
        self.advert = self.context0[:16] + said + self.sign("advertise", self.context0 + u32(self.me) + said)
        return wrap(wire.ADVERT, self.context0[:16], self.advert)

    def share(self, data: bytes) -> bytes:
        digest, blob = unwrap(data, wire.ADVERTS, self.context0[:16], bytes, bytes)
        demand(digest == b"", "no hash of adverts")
        self.seen = read_records(blob, advert_bytes(self.session))
        demand(self.seen.get(self.me) == self.advert, "this client's own advert")
        self.context = wire.context1(self.context0, wire.view(self.seen))
        others = {i: advert for i, advert in self.seen.items() if i != self.me}
        self.adverts = {i: read_advert(advert, i, self.session) for i, advert in others.items()}
        for i, advert in others.items():
            demand(i in self.choice or self.me in chosen(advert), "a neighbour")
        keys = [self.advert[16:48], self.advert[48:80]]
        for advert in self.adverts.values():
            keys += [advert.sealing, advert.masking, *advert.kem]
        self.kem = {i: list(advert.kem) for i, advert in self.adverts.items()}
        demand(len(set(keys)) == len(keys), "no key twice")
        holders = [i for i in self.choice if i in self.adverts]
        demand(len(holders) >= self.session.threshold, "enough holders")
        sealed = self.deal({i: self.sealed(i, pair) for i, pair in self.make_pairs(holders).items()})
        dealt = write_records(self.signed_records(sealed))
        return wrap(wire.SHARE, self.context[:16], dealt, self.signed_by_key("dealing", hashes(dealt)))

    def dealing_context(self) -> bytes:
        return wire.context1(self.context0, wire.view({self.me: self.advert}))

    def signed(self, stage: str, body: bytes) -> bytes:
        return self.sign(stage, self.context + u32(self.me) + body)

    def signed_by_key(self, usage: str, body: bytes) -> bytes:
        return self.sign_by_key(usage, self.context + u32(self.me) + body)

    def between(self, peer: int) -> bytes:
        return between(self.context0, self.seen, self.me, peer)

    def keys_to(self, sender: int, receiver: int, beside: bytes = b"") -> list[bytes]:
        known = {i: self.seen[i][16:48] for i in (sender, receiver)}
        return self.seal_keys(sender, receiver, known, beside)

    def voucher(self, usage: str, sender: int, receiver: int) -> bytes:
        peer = receiver if sender == self.me else sender
        shared = x25519(self.sealing, self.seen[peer][16:48])
        return voucher(shared, usage, self.between(peer), sender, receiver)

    def masks(self, peers: list[int]) -> list[tuple[int, bytes]]:
        masks = [(1, self.seed)]
        for peer in peers:
            low, high = sorted((self.me, peer))
            keys = (self.seen[low][48:80], self.seen[high][48:80])
            shared = x25519(self.masking, self.seen[peer][48:80])
            seed = wire.pair_seed(shared, self.between(peer), (low, high), keys)
            if self.session.hybrid:
                seed = self.hybrid_seed(peer, shared, self.advert[48:80], self.seen[peer][48:80])
            masks.append((1 if self.me == low else -1, seed))
        return masks

    def upload(self, data: bytes) -> bytes:
        count, listed, blob = unwrap(data, wire.SHARES, self.context[:16], int, bytes, bytes)
        self.sharers, self.received = read_ids(listed), blob
        sealed = self.sealed_for_me = read_records(blob, self.session.dealt_bytes())
        demand(set(self.sharers) <= set(self.seen) and self.me in self.sharers, "sharers that advertised")
        dealers = [i for i in self.sharers if i != self.me and self.me in chosen(self.seen[i])]
        demand(list(sealed) == dealers, "shares of all that shared and chose this client")
        self.masked = [i for i in self.sharers if i != self.me]
        demand(count >= self.session.quorum, "enough clients")
        self.check_records(sealed, self.adverts)
        demand(len(set(self.masked) & set(self.choice)) >= self.session.threshold, "enough holders")
        self.keys, self.unopened = {}, {}
        for peer, box in sealed.items():
            try:
                both = self.keys_to(peer, self.me, box[98:])
                for key, half in zip(both, (box[:49], box[49:98]), strict=True):
                    wire.open_share(key, self.between(peer), peer, self.me, half)
                self.keys[peer] = both
            except wire.Refused:
                self.unopened[peer] = box
        words = self.packed()
        for sign, seed in self.masks(self.masked):
            stream = keystream_words(seed, len(words))
            words = [(word + sign * mask) % 2**64 for word, mask in zip(words, stream, strict=True)]
        content, lacking = wire.words_to_bytes(words), id_list(sorted(self.unopened))
        said = write_records({i: self.voucher("uploaded", self.me, i) for i in self.masked})
        signature = self.signed_by_key("vouched-upload", hashes(content, said) + lacking)
        return wrap(VOUCHED_UPLOAD, self.context[:16], content, lacking, said, signature)

    def confirm(self, data: bytes) -> bytes:
        count, blob = unwrap(data, VOUCHED_SURVIVORS, self.context[:16], int, bytes)
        said = self.told = read_records(blob, 16)
        demand(set(said) <= set(self.masked), "survivors with whom it masked")
        self.listed = set(said)
        self.survivors = sorted(i for i in said if said[i] == self.voucher("uploaded", i, self.me))
        demand(count >= self.session.quorum, "enough survivors")
        demand(len(set(self.survivors) & set(self.choice)) >= self.session.threshold, "enough holders")
        counts = write_records(
            {i: self.voucher("survivor", self.me, i) for i in self.survivors if i in self.keys}
        )
        return wrap(VOUCHED_CONFIRM, self.context[:16], counts, self.signed("confirm", hashes(counts)))

    def unmask(self, data: bytes) -> bytes:
        doubts = b""
        if data[1] == DOUBTED_CONFIRMATIONS and self.listed - set(self.survivors):
            kind = DOUBTED_CONFIRMATIONS
            blob, appeals, doubts, views = unwrap(data, kind, self.context[:16], *[bytes] * 4)
        else:
            blob, appeals, views = unwrap(data, VOUCHED_CONFIRMATIONS, self.context[:16], *[bytes] * 3)
        said = read_records(blob, 16)
        demand(set(said) <= set(self.masked) & set(self.choice), "vouchers of holders")
        true = [i for i in said if said[i] == self.voucher("survivor", i, self.me)]
        demand(len(true) >= self.session.threshold, "enough that count this client")
        false = self.read_shown(read_texts(appeals, True), read_texts(doubts, True), read_texts(views, False))
        fields = [
            write_records({i: both[0] for i, both in self.keys.items() if i in self.survivors}),
            write_records({i: both[1] for i, both in self.keys.items() if i not in self.listed}),
            write_records({i: self.complain(i) for i in sorted(self.unopened)}),
        ]
        signature = self.signed("unmask", hashes(self.received, *fields))
        if not false:
            return wrap(wire.UNMASK, self.context[:16], *fields, signature)
        proofs = write_records({i: self.agreement(i) for i in false})
        return wrap(DOUBTED_UNMASK, self.context[:16], *fields, proofs, signature)

    def read_shown(
        self,
        appeals: dict[int, tuple[bytes, bytes]],
        doubts: dict[int, tuple[bytes, bytes]],
        views: dict[int, tuple[bytes, bytes]],
    ) -> list[int]:
        """Who has signed the false voucher that came; refused: what does not show that a dealer cheats."""
        demand(sorted(appeals) == sorted(self.unopened), "of all whose shares did not open")
        demand(set(doubts) <= self.listed - set(self.survivors), "of those whose vouchers are false")
        demand(sorted(views) == sorted({*appeals, *doubts}), "what each of them saw")
        same, contexts = {}, {}
        for peer, (_, blob) in views.items():
            contexts[peer] = wire.context1(self.context0, wire.sha256("view", blob))
            saw = read_records(blob, 32)
            same[peer] = all(saw.get(i) == hashlib.sha256(self.seen[i]).digest() for i in (self.me, peer))
        for dealer, (signature, dealt) in appeals.items():
            demand(same[dealer], "dealt to this client's own advert")
            body = label("dealing") + contexts[dealer] + u32(dealer) + hashes(dealt)
            check_owner(self.seen[dealer][16:48], body, signature)
            mine = read_records(dealt, self.session.dealt_bytes()).get(self.me)
            demand(mine == self.unopened[dealer], "what came was signed")
        false = []
        for peer, (signature, said) in doubts.items():
            end = 36 + int.from_bytes(said[32:36], "big")
            words, vouchers, lacking = said[:32], said[36:end], said[end:]
            body = label("vouched-upload") + contexts[peer] + u32(peer) + words + hashes(vouchers) + lacking
            try:
                check_owner(self.seen[peer][16:48], body, signature)
                if same[peer] and read_records(vouchers, 16).get(self.me) == self.told[peer]:
                    false.append(peer)
            except wire.Refused:
                pass
        return false


class Server:
    """The honest server."""

    def __init__(self, session: wire.Session) -> None:
        self.session, self.context0, self.stage = session, session.context0(), wire.ADVERT
        self.expected, self.got = list(session.invited), {}
        self.statements: dict[tuple[int, int], bytes] = {}  # by stage and client, as they are shown to others
        self.unopened: dict[int, list[int]] = {}
        self.blamed: set[int] = set()

    def receive(self, peer: int, data: bytes) -> None:
        demand(peer in self.expected and peer not in self.got, "a client that is expected")
        if self.stage == wire.ADVERT:
            (advert,) = unwrap(data, wire.ADVERT, self.context0[:16], bytes)
            read_advert(advert, peer, self.session)
            self.got[peer] = advert
            return
        kinds: dict[int, tuple[int, list[type]]] = {
            wire.SHARE: (wire.SHARE, [bytes] * 2),
            wire.UPLOAD: (VOUCHED_UPLOAD, [bytes] * 4),
            wire.CONFIRM: (VOUCHED_CONFIRM, [bytes] * 2),
            wire.UNMASK: (wire.UNMASK, [bytes] * 4),
        }
        kind, types = kinds[self.stage]
        context = self.context(peer)
        if self.stage == wire.UNMASK and data[1] == DOUBTED_UNMASK and self.doubted[peer]:
            *fields, proofs, signature = unwrap(data, DOUBTED_UNMASK, context[:16], *[bytes] * 5)
            demand(set(read_records(proofs, 96)) <= set(self.doubted[peer]), "of those it doubts")
            for sender, proof in read_records(proofs, 96).items():
                self.blamed.add(self.false_voucher(peer, sender, proof))
        else:
            *fields, signature = unwrap(data, kind, context[:16], *types)
        usage, body = "dealing", hashes(*fields)
        if self.stage == wire.UPLOAD:
            usage, body = "vouched-upload", hashes(fields[0], fields[2]) + fields[1]
        elif self.stage == wire.CONFIRM:
            usage = "confirm"
        elif self.stage == wire.UNMASK:
            usage, body = "unmask", hashes(self.received[peer], *fields)
        said = label(usage) + context + u32(peer) + body
        if self.stage in (wire.SHARE, wire.UPLOAD):
            check_owner(self.adverts[peer][16:48], said, signature)
        else:
            ed25519_verify(self.session.roster[peer], said, signature)
        if self.stage in (wire.SHARE, wire.UPLOAD):
            statement = fields[0]
            if self.stage == wire.UPLOAD:
                statement = hashes(fields[0]) + wire.text(fields[2]) + fields[1]
            self.statements[self.stage, peer] = u32(peer) + signature + wire.text(statement)
        self.got[peer] = self.read(peer, fields)

    def read(self, peer: int, fields: list[bytes]) -> Any:
        if self.stage == wire.SHARE:
            sealed = read_records(fields[0], self.session.dealt_bytes())
            demand(
                list(sealed) == [i for i in chosen(self.adverts[peer]) if i in self.adverts], "those it chose"
            )
            for holder, record in sealed.items() if self.session.hybrid else ():
                context, key = between(self.context0, self.adverts, peer, holder), self.adverts[peer][16:48]
                try:
                    wire.check_record(record, context, peer, holder, key)
                except wire.Refused:
                    self.blamed.add(peer)
                    raise
            return sealed
        if self.stage == wire.UPLOAD:
            said = read_records(fields[2], 16)
            demand(list(said) == self.near(peer, self.sharers), "a voucher for each neighbour")
            self.unopened[peer] = read_ids(fields[1])
            demand(set(self.unopened[peer]) <= set(self.dealers(peer, self.sharers)), "dealers to it")
            return wire.bytes_to_words(fields[0], self.session.words), said
        if self.stage == wire.CONFIRM:
            said = read_records(fields[0], 16)
            demand(set(said) <= set(self.dealers(peer, self.survivors)), "survivors that chose it")
            return said
        seeds, keys = (read_records(field, 32) for field in fields[:2])
        dealers = self.dealers(peer, self.sharers)
        demand(set(seeds) <= {i for i in dealers if i in self.survivors}, "survivors' seeds")
        gone = [i for i in dealers if i not in self.survivors and i not in self.unopened[peer]]
        demand(list(keys) == gone, "dropped clients' keys")
        complaints = read_records(fields[2], self.session.complaint_bytes())
        demand(list(complaints) == self.unopened[peer], "a proof for each complaint")
        for dealer, proof in complaints.items():
            context, sealed = between(self.context0, self.adverts, dealer, peer), self.dealt[dealer][peer]
            self.blamed |= wire.judge(context, peer, dealer, sealed, proof, self.adverts, self.session.hybrid)
        return [
            {i: self.opened_share(i, peer, which, key) for i, key in given.items()}
            for which, given in enumerate((seeds, keys))
        ]

    def false_voucher(self, receiver: int, sender: int, proof: bytes) -> int:
        """Who lies: the one that vouched, or the one that says that this was false."""
        context = between(self.context0, self.adverts, receiver, sender)
        keys = (self.adverts[receiver][16:48], self.adverts[sender][16:48])
        try:
            shared = wire.proved_agreement(proof, *keys, context)
        except wire.Refused:
            return receiver
        true = voucher(shared, "uploaded", context, sender, receiver)
        return receiver if self.vouched[sender][receiver] == true else sender

    def opened_share(self, owner: int, holder: int, which: int, key: bytes) -> bytes:
        half = self.dealt[owner][holder][49 * which :][:49]
        return wire.open_share(key, between(self.context0, self.adverts, owner, holder), owner, holder, half)

    def near(self, client: int, among: list[int]) -> list[int]:
        mine = chosen(self.adverts[client])
        return [i for i in among if i != client and (i in mine or client in chosen(self.adverts[i]))]

    def dealers(self, client: int, among: list[int]) -> list[int]:
        return [i for i in among if client in chosen(self.adverts[i])]

    def context(self, client: int) -> bytes:
        seen = [client, *self.near(client, list(self.adverts))]
        return wire.context1(self.context0, wire.view({i: self.adverts[i] for i in sorted(seen)}))

    def wrapped(self, kind: int, client: int, *fields: int | bytes) -> bytes:
        return wrap(kind, self.context(client)[:16], *fields)

    def close(self) -> dict[int, bytes]:
        present, got, threshold = sorted(self.got), self.got, self.session.threshold
        self.got, self.expected = {}, present
        demand(self.stage in (wire.CONFIRM, wire.UNMASK) or len(present) >= self.session.quorum, "enough")
        if self.stage == wire.ADVERT:
            self.stage, self.adverts = wire.SHARE, {i: got[i] for i in present}
            seen = {i: sorted([i, *self.near(i, present)]) for i in present}
            name = self.context0[:16]
            return {
                i: wrap(wire.ADVERTS, name, b"", write_records({j: got[j] for j in seen[i]})) for i in present
            }
        if self.stage == wire.SHARE:
            self.stage, self.sharers, self.dealt = wire.UPLOAD, present, got
            self.received = {
                i: write_records({j: got[j][i] for j in self.dealers(i, present)}) for i in present
            }
            near = {i: sorted([i, *self.near(i, present)]) for i in present}
            return {
                i: self.wrapped(wire.SHARES, i, len(present), id_list(near[i]), self.received[i])
                for i in present
            }
        if self.stage == wire.UPLOAD:
            self.stage, self.survivors = wire.CONFIRM, present
            self.vouched = {i: got[i][1] for i in present}
            self.total = [sum(column) % 2**64 for column in zip(*(got[i][0] for i in present), strict=True)]
            return {
                i: self.wrapped(
                    VOUCHED_SURVIVORS,
                    i,
                    len(present),
                    write_records({j: got[j][1][i] for j in self.near(i, present)}),
                )
                for i in present
            }
        if self.stage == wire.CONFIRM:
            self.stage = wire.UNMASK
            counts = {
                i: {j: got[j][i] for j in chosen(self.adverts[i]) if i in got.get(j, {})} for i in present
            }
            self.expected = [i for i in present if len(counts[i]) >= threshold]
            self.doubted = {
                i: [
                    j
                    for j in self.dealers(i, self.survivors)
                    if j not in got[i] and j not in self.unopened[i]
                ]
                for i in self.expected
            }
            return {i: self.confirmations(i, write_records(counts[i])) for i in self.expected}
        self.open(got)
        return {}

    def confirmations(self, client: int, counts: bytes) -> bytes:
        unopened, doubted = self.unopened[client], self.doubted[client]
        fields = [counts, b"".join(self.statements[wire.SHARE, i] for i in unopened)]
        if doubted:
            fields.append(b"".join(self.statements[wire.UPLOAD, i] for i in doubted))
        fields.append(b"".join(u32(i) + wire.text(self.saw(i)) for i in sorted([*unopened, *doubted])))
        return self.wrapped(DOUBTED_CONFIRMATIONS if doubted else VOUCHED_CONFIRMATIONS, client, *fields)

    def saw(self, client: int) -> bytes:
        seen = sorted([client, *self.near(client, list(self.adverts))])
        return write_records({i: hashlib.sha256(self.adverts[i]).digest() for i in seen})

    def open(self, got: dict[int, Any]) -> None:
        for owner in self.sharers:
            which = 0 if owner in self.survivors else 1
            alive = self.near(owner, self.survivors)
            if which and not alive:
                continue
            shares = {
                holder + 1: given[which][owner] for holder, given in got.items() if owner in given[which]
            }
            demand(len(shares) >= self.session.threshold, "enough shares")
            few = dict(sorted(shares.items())[: self.session.threshold])
            secret = wire.shamir_combine(few, self.session.threshold)
            if which == 0:
                expected = wire.commitment(self.context0, owner, secret)
                demand(self.adverts[owner][80:112] == expected, "the committed seed")
                self.add(-1, secret)
                continue
            root = secret
            if self.session.hybrid:
                secret = kem768.mask_key(root)
            demand(x25519_public(secret) == self.adverts[owner][48:80], "the advertised key")
            for peer in alive:
                low, high = sorted((owner, peer))
                keys = (self.adverts[low][48:80], self.adverts[high][48:80])
                shared = x25519(secret, self.adverts[peer][48:80])
                context = between(self.context0, self.adverts, owner, peer)
                seed = wire.pair_seed(shared, context, (low, high), keys)
                if self.session.hybrid:
                    parts = self.parts(owner, peer, root, context)
                    seed = kem768.pair_seed(shared, [parts[low], parts[high]], context, (low, high), keys)
                self.add(-1 if peer == low else 1, seed)
        session = self.session
        self.counts = session.unpack(self.total, len(self.survivors))
        content = wire.words_to_bytes(self.total)
        self.opened = wrap(wire.OPENED, self.context0[:16], len(self.survivors), content)

    def parts(self, owner: int, peer: int, root: bytes, context: bytes) -> dict[int, bytes]:
        """What a dropped client and a survivor added to the seed of their mask."""
        parts = {owner: b"", peer: b""}
        if peer in self.dealt[owner]:
            parts[owner] = kem768.part(root, context, owner, peer)
        if owner in self.dealt[peer]:
            kem = kem768.mask_kem_seed(root)
            parts[peer] = wire.part_of(self.dealt[peer][owner], kem, context, peer, owner)
        return parts

    def add(self, sign: int, seed: bytes) -> None:
        stream = keystream_words(seed, len(self.total))
        self.total = [(word + sign * mask) % 2**64 for word, mask in zip(self.total, stream, strict=True)]
