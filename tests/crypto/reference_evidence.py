"""Whom evidence convicts, a second time: written from the page, in the second implementation's primitives."""

from __future__ import annotations

from typing import Any

import msgspec
import reference as wire
import reference_kem as kem
from reference import demand, hashes, label, read_ids, read_records, u32
from reference_chosen import voucher
from reference_primitives import (
    Refused,
    check_owner,
    ed25519_verify,
    shamir_combine,
    x25519_public,
)

FIELDS = {1: 1, 2: 5, 3: 5, 4: 6, 5: 5, 6: 5}
"""How many come after kind, version, session and accused."""


class Case:
    """One piece of evidence, with what is known of its session.

    Raises:
        Refused: it is not even a piece of evidence.
    """

    def __init__(self, evidence: bytes, roster: dict[int, bytes]) -> None:
        self.kind, version, session, self.accused, *self.fields = msgspec.msgpack.decode(evidence)
        demand(version == 2 and len(self.fields) == FIELDS.get(self.kind), "evidence")
        self.roster, self.fixed = roster, session
        spec, invited = session["spec"], session["invited"]
        self.chosen, self.degree = session["graph"] == "chosen", session["degree"]
        self.threshold, self.count = session["threshold"], invited["count"]
        self.hybrid = session["suite"] != "x25519"
        demand(session["mode"] == "active" and session["graph"] != "harary", "an active session")
        demand(0 < self.threshold <= self.count and 0 < self.degree < self.count, "sizes that there are")
        parts = spec.get("parts")
        self.context0 = wire.sha256(
            "context0",
            wire.text(session["federation"].encode()),
            wire.u64(session["number"]),
            wire.u64(session["round"]),
            wire.u64(spec["dimension"]),
            wire.u64(spec["bound"]),
            wire.u64(spec["bound"] * self.count),
            wire.text(spec["codec"].encode()),
            wire.text(b"active"),
            *(u32(session[name]) for name in ("threshold", "min_survivors", "min_cohort", "colluders")),
            wire.text(session["graph"].encode()),
            u32(self.degree),
            wire.text(session["suite"].encode()),
            session["roster_hash"],
            u32(self.count),
            invited["digest"],
            session["exclusions"],
            wire.text(session["model_hash"]),
            wire.text(session["binding"]),
            *([] if parts is None else [wire.text(msgspec.msgpack.encode(parts))]),
        )
        self.choices = 4 * self.degree if self.chosen else 0
        self.kem_bytes = 2 * 1184 if self.hybrid else 0
        self.dealt_bytes = 98 + (2 * 1088 + 96 + 64 if self.hybrid else 0)
        self.shown_bytes = 96 + (32 if self.hybrid else 0)

    def signed(self, stage: str, body: bytes, signature: bytes) -> None:
        demand(self.accused in self.roster, "a client of the roster")
        ed25519_verify(self.roster[self.accused], label(stage) + body, signature)

    def signed_by_key(self, usage: str, body: bytes, signature: bytes) -> None:
        """With the sealing key of an advert that the identity has signed."""
        advert = self.records[self.accused]
        self.signed("advertise", self.context0 + u32(self.accused) + advert[16:-64], advert[-64:])
        check_owner(self.adverts[self.accused]["sealing"], label(usage) + body, signature)

    def cut(self, advert: bytes) -> dict[str, Any]:
        demand(len(advert) == 240 + self.kem_bytes + self.choices, "an advert's length")
        after = 112 + self.kem_bytes
        return {
            "sealing": advert[16:48],
            "masking": advert[48:80],
            "commitment": advert[80:112],
            "kem": [advert[i : i + 1184] for i in range(112, after, 1184)],
            "owner": advert[after : after + 64],
            "choice": read_ids(advert[after + 64 : -64]),
        }

    def convicts(self) -> bool:
        """Whether it proves what its kind proves."""
        if self.kind == 1:
            return self.useless_key(self.fields[0])
        self.records = read_records(self.fields[0], 240 + self.kem_bytes + self.choices)
        demand(len(self.records) <= len(self.roster), "no more adverts than clients")
        self.adverts = {i: self.cut(advert) for i, advert in self.records.items()}
        demand(self.accused in self.adverts, "the accused among them")
        hashed = wire.view(self.records) if self.chosen else wire.all_adverts(self.records)
        self.context = wire.context1(self.context0, hashed)
        if self.kind == 4:
            return self.contradiction()
        if self.kind == 6:
            return self.false_voucher()
        sealed, signature = self.fields[1:3]
        self.signed_by_key("dealing", self.context + u32(self.accused) + hashes(sealed), signature)
        holders = self.adverts[self.accused]["choice"] if self.chosen else self.records
        try:
            self.dealt = read_records(sealed, self.dealt_bytes)
        except Refused:
            return True
        if list(self.dealt) != [i for i in holders if i in self.records]:
            return True
        return {2: self.garbage, 3: self.nonsense, 5: self.another_part}[self.kind]()

    def useless_key(self, data: bytes) -> bool:
        advert = self.cut(data)
        self.signed("advertise", self.context0 + u32(self.accused) + data[16:-64], data[-64:])
        try:
            for key in (advert["sealing"], advert["masking"]):
                wire.check_public_key(key)
                demand(int.from_bytes(key, "little") < 2**255 - 20, "a point")
                wire.edwards_point(key)
            for key in advert["kem"]:
                kem.check_key(key)
            keys = [advert["sealing"], advert["masking"], *advert["kem"]]
            demand(len(set(keys)) == len(keys), "different keys")
            body = label("owner") + self.context0 + u32(self.accused)
            check_owner(advert["sealing"], body, advert["owner"])
        except (Refused, ValueError):
            return True
        return False

    def between(self, first: int, second: int) -> bytes:
        if not self.chosen or first not in self.records or second not in self.records:
            return self.context
        both = {i: self.records[i] for i in (first, second)}
        return wire.context1(self.context0, wire.view(both))

    def keys_of(self, shown: bytes, dealer: int, holder: int, record: bytes) -> list[bytes] | None:
        """The keys of the seals, by what a holder shows; None if nobody can tell. Refused: no proof."""
        theirs, ours = self.adverts[dealer]["sealing"], self.adverts[holder]["sealing"]
        context = self.between(dealer, holder)
        if self.hybrid:
            hashed = kem.hashed("secret-hash", context, dealer, holder, shown[96:])
            if not any(shown[96:]) or hashed != record[2306:2338]:
                return None
        try:
            shared = wire.proved_agreement(shown[:96], ours, theirs, context)
        except ValueError:
            raise Refused("no point") from None
        if self.hybrid:
            first = record[98:1186]
            return kem.seal_keys(shared, shown[96:], first, context, (dealer, holder), (theirs, ours))
        return wire.seal_keys(shared, context, dealer, holder, (theirs, ours))

    def opens(self, both: list[bytes], dealer: int, holder: int, record: bytes) -> bool:
        try:
            for key, half in zip(both, (record[:49], record[49:98]), strict=True):
                wire.open_share(key, self.between(dealer, holder), dealer, holder, half)
        except Refused:
            return False
        return True

    def garbage(self) -> bool:
        _, _, _, holder, shown = self.fields
        demand(holder in self.dealt and holder != self.accused, "something dealt")
        demand(len(shown) == self.shown_bytes, "a proof's length")
        both = self.keys_of(shown, self.accused, holder, self.dealt[holder])
        return both is not None and not self.opens(both, self.accused, holder, self.dealt[holder])

    def nonsense(self) -> bool:
        _, _, _, which, blob = self.fields
        keys, advert = read_records(blob, 32), self.adverts[self.accused]
        demand(self.threshold <= 1000, "so few shares that they are combined")
        demand(set(keys) <= set(self.dealt) and len(keys) - self.threshold in (0, 1), "keys to t or t + 1")
        shares = {}
        for holder, key in keys.items():
            half = self.dealt[holder][49 * which :][:49]
            context = self.between(self.accused, holder)
            shares[holder + 1] = wire.open_share(key, context, self.accused, holder, half)
        if len(shares) > self.threshold:
            # On one polynomial any t of them give the same constant term as any others.
            found = set()
            for left in shares:
                rest = {x: share for x, share in shares.items() if x != left}
                found.add(_constant(rest))
            return len(found) > 1
        try:
            secret = shamir_combine(shares, self.threshold)
        except Refused:
            return True
        if which == 0:
            return wire.commitment(self.context0, self.accused, secret) != advert["commitment"]
        if not self.hybrid:
            return x25519_public(secret) != advert["masking"]
        right = x25519_public(kem.mask_key(secret)) == advert["masking"]
        right = right and kem.generate(kem.mask_kem_seed(secret))[0] == advert["kem"][1]
        for holder, record in self.dealt.items():
            ends = (self.between(self.accused, holder), self.accused, holder)
            part = kem.part(secret, *ends)
            right = right and kem.hashed("part-hash", *ends, part) == record[2338:2370]
        return not right

    def another_part(self) -> bool:
        _, _, _, holder, seed = self.fields
        demand(self.hybrid and holder in self.dealt, "something encapsulated")
        record, context = self.dealt[holder], self.between(self.accused, holder)
        try:
            wire.check_record(record, context, self.accused, holder, self.adverts[self.accused]["sealing"])
        except Refused:
            return True
        demand(len(seed) == 64, "a seed's length")
        demand(kem.generate(seed)[0] == self.adverts[holder]["kem"][1], "the seed of that key")
        try:
            wire.part_of(record, seed, context, self.accused, holder)
        except Refused:
            return True
        return False

    def contradiction(self) -> bool:
        _, received, seeds, keys, complaints, signature = self.fields
        shown = read_records(complaints, self.shown_bytes)
        most = len(self.records) if self.chosen else max(1, self.count - self.threshold)
        demand(len(shown) <= most, "no more complaints than a server takes")
        body = self.context + u32(self.accused) + hashes(received, seeds, keys, complaints)
        self.signed("unmask", body, signature)
        records = read_records(received, self.dealt_bytes)
        for which, blob in enumerate((seeds, keys)):
            for owner, key in read_records(blob, 32).items():
                half = records.get(owner, b"")[49 * which :][:49]
                context = self.between(owner, self.accused)
                try:
                    wire.open_share(key, context, owner, self.accused, half)
                except Refused:
                    return True
        for dealer, proof in shown.items():
            if dealer not in records or dealer not in self.adverts:
                return True
            try:
                both = self.keys_of(proof, dealer, self.accused, records[dealer])
            except Refused:
                return True
            if both is not None and self.opens(both, dealer, self.accused, records[dealer]):
                return True
        return False

    def false_voucher(self) -> bool:
        _, statement, signature, receiver, proof = self.fields
        demand(self.chosen and len(statement) >= 36 and len(proof) == 96, "vouchers")
        end = 36 + int.from_bytes(statement[32:36], "big")
        demand(len(statement) >= end, "all of them")
        said = statement[36:end]
        body = self.context + u32(self.accused) + statement[:32] + hashes(said) + statement[end:]
        self.signed_by_key("vouched-upload", body, signature)
        demand(receiver in self.adverts and receiver != self.accused, "a neighbour")
        shown = read_records(said, 16)
        demand(receiver in shown, "a voucher for it")
        context = self.between(self.accused, receiver)
        keys = self.adverts[receiver]["sealing"], self.adverts[self.accused]["sealing"]
        try:
            shared = wire.proved_agreement(proof, *keys, context)
        except ValueError:
            raise Refused("no point") from None
        return voucher(shared, "uploaded", context, self.accused, receiver) != shown[receiver]


def _constant(shares: dict[int, bytes]) -> int:
    """The value at 0 of the polynomial through these."""
    total, prime = 0, wire.FIELD
    for x, share in shares.items():
        term = int.from_bytes(share, "big")
        for other in shares:
            if other != x:
                term = term * other * pow(other - x, -1, prime) % prime
        total = (total + term) % prime
    return total


def convicted(evidence: bytes, roster: dict[int, bytes]) -> int | None:
    """The client that it convicts."""
    try:
        case = Case(evidence, roster)
        return case.accused if case.convicts() else None
    except (Refused, KeyError, ValueError, TypeError, IndexError, OverflowError, msgspec.DecodeError):
        return None
    except Exception as error:  # struct.error and the like: no evidence
        if type(error).__module__ == "struct":
            return None
        raise
