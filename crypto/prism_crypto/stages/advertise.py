"""Stage 1, advertise: each client draws its keys of this session and says who it is.

Client to server: two public keys (hybrid: four), a commitment to the self-mask seed, (active) a proof that it
knows the private half of the sealing key, on a chosen graph the neighbours that it has drawn, and (active) a
signature over them under ctx0. Server to client: the adverts of all, or of its neighbours in a sparse graph.

Bonawitz et al. 2017, figure 4, round 0, with the commitment and the full context added.
"""

from __future__ import annotations

import msgspec

from prism_crypto.errors import PublicKeyError, SignatureError
from prism_crypto.keeping.identity import pinned
from prism_crypto.primitives.chosen_graph import choose
from prism_crypto.primitives.context import self_mask_commitment, tag
from prism_crypto.primitives.hybrid import HybridMaskPair, HybridSealingPair
from prism_crypto.primitives.keys import KeyPair, SealingKeyPair
from prism_crypto.primitives.keystream import SEED_BYTES
from prism_crypto.primitives.randomness import draw
from prism_crypto.primitives.secret import Secret
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import (
    Advert,
    advert_bytes,
    check_advert,
    check_usable,
    owner_body,
    read_advert,
)
from prism_crypto.stages.contexts import Contexts
from prism_crypto.stages.evidence import AdvertEvidence
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.share import Sharing
from prism_crypto.stages.states import Advertised, Ready
from prism_crypto.wire.messages import (
    FRAME_BYTES,
    VERSION,
    AdvertMessage,
    AdvertsMessage,
    decode,
    encode,
    encode_records,
)

__all__ = ["Advertising", "advertise"]


def advertise(state: Ready) -> tuple[Advertised, bytes]:
    """Client: draw fresh keys and a seed, and make the advert."""
    party = state.party
    context0 = party.session.context0
    hybrid = party.session.hybrid
    sealing = (HybridSealingPair if hybrid else SealingKeyPair).generate(party.rng)
    masking = (HybridMaskPair if hybrid else KeyPair).generate(party.rng)
    seed, dealing = Secret(draw(party.rng, SEED_BYTES)), Secret(draw(party.rng, SEED_BYTES))
    commitment = self_mask_commitment(context0, party.client_id, seed.reveal())
    choice: tuple[int, ...] = ()
    if party.chosen:
        choice = choose(party.session.invited.ids or (), party.client_id, party.session.degree, party.rng)
    owner = sealing.sign("owner", owner_body(context0, party.client_id)) if party.active else b""
    kem_keys: tuple[bytes, ...] = ()
    if isinstance(sealing, HybridSealingPair) and isinstance(masking, HybridMaskPair):
        kem_keys = (sealing.kem.public, masking.kem.public)
    advert = Advert(
        tag(context0), sealing.public, masking.public, commitment, owner, choice, kem_keys=kem_keys
    )
    if party.active:
        signature = party.signer().sign(Stage.ADVERTISE, advert.signed_part(context0, party.client_id))
        advert = msgspec.structs.replace(advert, signature=signature)
    encoded = advert.encode()
    message = encode(AdvertMessage(VERSION, tag(context0), encoded))
    return Advertised(party, sealing, masking, seed, dealing, encoded, choice), message


class Advertising(Gathering):
    """Server: collect the adverts."""

    stage = Stage.ADVERTISE

    def __init__(self, hall: Hall) -> None:
        super().__init__(hall, hall.topology.ids)
        self._adverts: dict[int, bytes] = {}
        self._choices: dict[int, tuple[int, ...]] = {}
        self._keys: set[bytes] = set()

    def accept(self, peer: int, data: bytes) -> None:
        """Check an advert as the clients will."""
        session = self.hall.session
        limit = FRAME_BYTES + advert_bytes(session)
        message = decode(AdvertMessage, data, session.context0, limit=limit, stage=self.stage, peer=peer)
        try:
            advert = check_advert(message.advert, peer, session, self.hall.roster, self.stage)
            check_usable(advert, session.context0, peer)
        except PublicKeyError as error:
            self._accuse(peer, message.advert)
            error.at(self.stage, peer)
            raise
        keys = set(advert.keys)
        if keys & self._keys:
            # Who was first need not be its owner; the clients would all stop at a key that is there twice.
            raise PublicKeyError("a public key that another client has sent", stage=self.stage, peer=peer)
        self._keys |= keys
        self._adverts[peer] = message.advert
        self._choices[peer] = advert.choice

    def _accuse(self, peer: int, data: bytes) -> None:
        """Blame the sender of a useless key, if it has signed it."""
        session = self.hall.session
        if session.mode is not Mode.ACTIVE:
            return
        body = read_advert(data, session)
        try:
            pinned(self.hall.roster).verify(
                peer, self.stage, body.signed_part(session.context0, peer), body.signature
            )
        except SignatureError:
            return
        self.hall.accuse(AdvertEvidence(VERSION, session, peer, data))

    def close(self) -> tuple[Sharing, dict[int, bytes]]:
        """Send the adverts around.

        Raises:
            ThresholdError: too few advertised.
        """
        hall = self.hall
        self.check_quorum("advertised")
        adverts = dict(sorted(self._adverts.items()))
        name, topology = tag(hall.session.context0), hall.topology
        seen: dict[int, tuple[int, ...]] | None = None
        if hall.session.graph == "chosen":
            topology.settle({client_id: self._choices[client_id] for client_id in adverts})
            seen = {i: tuple(sorted((i, *topology.neighbours(i, adverts)))) for i in adverts}
        contexts = Contexts(hall.session, adverts, seen)
        outbound: dict[int, bytes] = {}
        if hall.session.graph == "complete":
            message = encode(AdvertsMessage(VERSION, name, b"", encode_records(adverts)))
            outbound = dict.fromkeys(adverts, message)
        elif hall.session.graph == "chosen":
            for client_id in adverts:
                outbound[client_id] = encode(AdvertsMessage(VERSION, name, b"", contexts.seen(client_id)))
        else:
            for client_id in adverts:
                near = encode_records({i: adverts[i] for i in topology.neighbours(client_id, adverts)})
                outbound[client_id] = encode(AdvertsMessage(VERSION, name, contexts.everything, near))
        return Sharing(hall, adverts, contexts), outbound
