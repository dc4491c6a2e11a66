"""Stage 2, share: each client shares its two secrets among its neighbours, sealed.

Server to client, before: the adverts. Client to server: per neighbour one sealed pair of Shamir shares, of
the self-mask seed and of the mask key. A client holds a share of its own secrets too, so that t clients are
enough to open even when no more than t are left.

Bonawitz et al. 2017, figure 4, round 1.
"""

from __future__ import annotations

from prism_crypto.errors import MessageError, ProtocolError, PublicKeyError, SecureSumError
from prism_crypto.primitives.context import DIGEST_BYTES, advert_digest, context1, encode_ids, tag, u32
from prism_crypto.primitives.keys import seal
from prism_crypto.primitives.secret import Secret
from prism_crypto.primitives.shamir import split
from prism_crypto.stage import Stage
from prism_crypto.stages.advert import Advert, advert_bytes, check_advert
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.party import Neighbour
from prism_crypto.stages.states import Advertised, Shared
from prism_crypto.stages.upload import Uploading
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    ID_BYTES,
    SEALED_BYTES,
    VERSION,
    AdvertsMessage,
    ShareMessage,
    SharesMessage,
    decode,
    decode_records,
    encode,
    encode_records,
)

__all__ = ["Sharing", "share"]


def share(state: Advertised, data: bytes) -> tuple[Shared, bytes]:
    """Client: check the adverts, and seal a pair of shares for each neighbour.

    Raises:
        MessageError, ContextMismatch, PublicKeyError, SignatureError, IdentityError: an advert is not what
            an honest client of this session sends; ``peer`` is its sender.
        ProtocolError: an advert of somebody who is not invited, or this client's own replaced or missing.
        ThresholdError: too few clients advertised.
    """
    party, session = state.party, state.party.session
    adverts, everything = _read_adverts(state, data)
    context = context1(session.context0, everything)
    me = party.client_id

    holders = sorted([me, *adverts])
    points = [holder + 1 for holder in holders]
    seed_shares = split(state.seed.reveal(), session.threshold, points, party.rng)
    key_shares = split(state.masking.private(), session.threshold, points, party.rng)

    neighbours: dict[int, Neighbour] = {}
    sealed: dict[int, bytes] = {}
    for peer, advert in adverts.items():
        try:
            agreed = state.sealing.agree(advert.sealing_key)
        except SecureSumError as error:
            error.at(Stage.SHARE, peer)
            raise
        pair = seed_shares[peer + 1] + key_shares[peer + 1]
        keys = (state.sealing.public, advert.sealing_key)
        sealed[peer] = seal(agreed, context, (me, peer), keys, pair)
        neighbours[peer] = Neighbour(advert.sealing_key, advert.mask_key, agreed)

    state.sealing.erase()
    own_shares = Secret(seed_shares[me + 1] + key_shares[me + 1])
    message = encode(ShareMessage(VERSION, tag(context), encode_records(sealed)))
    after = Shared(party, context, state.sealing.public, state.masking, state.seed, own_shares, neighbours)
    return after, message


def _read_adverts(state: Advertised, data: bytes) -> tuple[dict[int, Advert], bytes]:
    """The neighbours' adverts, checked, and the hash of all adverts."""
    party, session, stage = state.party, state.party.session, Stage.SHARE
    width = advert_bytes(session)
    limit = FRAME_BYTES + (session.degree + 1) * (ID_BYTES + width)
    message = decode(AdvertsMessage, data, session.context0, limit=limit, stage=stage)
    records = decode_records(message.adverts, width, stage=stage)

    if party.sparse:
        # The neighbours alone are seen, so the hash of all adverts comes from the server: a semi-honest one.
        if len(message.digest) != DIGEST_BYTES or party.client_id in records or len(records) > session.degree:
            raise MessageError(f"expected at most {session.degree} neighbours and a hash", stage=stage)
        everything = message.digest
        party.check_quorum(session.quorum, len(records) + 1, stage, "advertised")
    else:
        if message.digest:
            raise MessageError("a hash of adverts that this client hashes itself", stage=stage)
        if records.pop(party.client_id, None) != state.advert:
            raise ProtocolError("this client's own advert was replaced", stage=stage, peer=party.client_id)
        invited = frozenset(session.invited.ids or ())
        for client_id in records:
            if client_id not in invited:
                raise ProtocolError("an advert of a client that was not invited", stage=stage, peer=client_id)
        total = len(records) + 1
        entries = message.adverts
        everything = advert_digest([entries], total)
        party.check_quorum(total, total, stage, "advertised")

    adverts = {
        peer: check_advert(record, peer, session, party.roster, stage) for peer, record in records.items()
    }
    _check_distinct_keys(adverts, state)
    return adverts, everything


def _check_distinct_keys(adverts: dict[int, Advert], state: Advertised) -> None:
    """No key appears twice: one who repeats another's key can't answer for it."""
    seen = {state.sealing.public, state.masking.public}
    for peer, advert in adverts.items():
        for key in (advert.sealing_key, advert.mask_key):
            if key in seen:
                raise PublicKeyError(
                    "a public key that another client sent too", stage=Stage.SHARE, peer=peer
                )
            seen.add(key)


class Sharing(Gathering):
    """Server: collect the sealed shares, unread.

    Args:
        hall: the session.
        present: U1, the clients that advertised.
        adverts: their adverts.
        everything: the hash of all adverts.
    """

    stage = Stage.SHARE

    def __init__(
        self, hall: Hall, present: tuple[int, ...], adverts: dict[int, bytes], everything: bytes
    ) -> None:
        super().__init__(hall, present)
        self.context = context1(hall.session.context0, everything)
        self._adverts = adverts
        self._sealed: dict[int, bytes] = {}

    def accept(self, peer: int, data: bytes) -> None:
        """Check that there is one sealed pair for each of the sender's neighbours."""
        session = self.hall.session
        limit = FRAME_BYTES + session.degree * (ID_BYTES + SEALED_BYTES)
        message = decode(ShareMessage, data, self.context, limit=limit, stage=self.stage, peer=peer)
        receivers = tuple(decode_records(message.sealed, SEALED_BYTES, stage=self.stage, peer=peer))
        expected = self.hall.topology.neighbours(peer, self._adverts)
        if receivers != expected:
            raise ProtocolError(
                f"expected shares for {len(expected)} neighbours, got {len(receivers)} or others",
                stage=self.stage,
                peer=peer,
            )
        self._sealed[peer] = message.sealed

    def close(self) -> tuple[Uploading, dict[int, bytes]]:
        """Send each client the shares for it, and say who shared.

        Raises:
            ThresholdError: too few shared.
        """
        self.check_quorum("shared")
        sharers = tuple(sorted(self._sealed))
        inbox: dict[int, list[bytes]] = {client_id: [] for client_id in sharers}
        for sender in sharers:
            prefix = u32(sender)
            for receiver, sealed in decode_records(
                self._sealed.pop(sender), SEALED_BYTES, stage=self.stage
            ).items():
                if receiver in inbox:
                    inbox[receiver].append(prefix + sealed)

        outbound = {}
        everyone = encode_ids(sharers)
        for receiver in sharers:
            known = everyone
            if self.hall.session.graph == "harary":
                near = self.hall.topology.neighbours(receiver, inbox)
                known = encode_ids(sorted([receiver, *near]))
            outbound[receiver] = encode(
                SharesMessage(VERSION, tag(self.context), len(sharers), known, b"".join(inbox[receiver]))
            )
            inbox[receiver].clear()
        return Uploading(self.hall, sharers, self._adverts, self.context), outbound
