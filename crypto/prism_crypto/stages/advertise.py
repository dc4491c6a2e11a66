"""Stage 1, advertise: each client draws its keys of this session and says who it is.

Client to server: two public keys, a commitment to the self-mask seed, and (active) a signature over them
under ctx0. Server to client: the adverts of all, or of its neighbours in a sparse graph.

Bonawitz et al. 2017, figure 4, round 0, with the commitment and the full context added.
"""

from __future__ import annotations

from prism_crypto.errors import PublicKeyError, SignatureError
from prism_crypto.keeping.identity import pinned
from prism_crypto.primitives.context import advert_digest, self_mask_commitment, tag, u32
from prism_crypto.primitives.keys import KeyPair
from prism_crypto.primitives.keystream import SEED_BYTES
from prism_crypto.primitives.randomness import draw
from prism_crypto.primitives.secret import Secret
from prism_crypto.stage import Mode, Stage
from prism_crypto.stages.advert import Advert, advert_bytes, check_advert, check_usable
from prism_crypto.stages.evidence import AdvertEvidence
from prism_crypto.stages.gathering import Gathering, Hall
from prism_crypto.stages.share import Sharing
from prism_crypto.stages.states import Advertised, Ready
from prism_crypto.wire.messages import FRAME_BYTES, VERSION, AdvertMessage, AdvertsMessage, decode, encode

__all__ = ["Advertising", "advertise"]


def advertise(state: Ready) -> tuple[Advertised, bytes]:
    """Client: draw fresh keys and a seed, and make the advert."""
    party = state.party
    context0 = party.session.context0
    sealing, masking = KeyPair.generate(party.rng), KeyPair.generate(party.rng)
    seed, dealing = Secret(draw(party.rng, SEED_BYTES)), Secret(draw(party.rng, SEED_BYTES))
    commitment = self_mask_commitment(context0, party.client_id, seed.reveal())
    advert = Advert(tag(context0), sealing.public, masking.public, commitment)
    if party.active:
        signature = party.signer().sign(Stage.ADVERTISE, advert.signed_part(context0, party.client_id))
        advert = Advert(tag(context0), sealing.public, masking.public, commitment, signature)
    encoded = advert.encode()
    message = encode(AdvertMessage(VERSION, tag(context0), encoded))
    return Advertised(party, sealing, masking, seed, dealing, encoded), message


class Advertising(Gathering):
    """Server: collect the adverts."""

    stage = Stage.ADVERTISE

    def __init__(self, hall: Hall) -> None:
        super().__init__(hall, hall.topology.ids)
        self._adverts: dict[int, bytes] = {}
        self._keys: set[bytes] = set()

    def accept(self, peer: int, data: bytes) -> None:
        """Check an advert as the clients will."""
        session = self.hall.session
        limit = FRAME_BYTES + advert_bytes(session)
        message = decode(AdvertMessage, data, session.context0, limit=limit, stage=self.stage, peer=peer)
        try:
            advert = check_advert(message.advert, peer, session, self.hall.roster, self.stage)
            check_usable(advert)
        except PublicKeyError as error:
            self._accuse(peer, message.advert)
            error.at(self.stage, peer)
            raise
        keys = {advert.sealing_key, advert.mask_key}
        if keys & self._keys:
            # Who was first need not be its owner; the clients would all stop at a key that is there twice.
            raise PublicKeyError("a public key that another client has sent", stage=self.stage, peer=peer)
        self._keys |= keys
        self._adverts[peer] = message.advert

    def _accuse(self, peer: int, data: bytes) -> None:
        """Blame the sender of a useless key, if it has signed it."""
        session = self.hall.session
        if session.mode is not Mode.ACTIVE:
            return
        body = Advert.decode(data, signed=True)
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
        present = tuple(sorted(self._adverts))
        records = {client_id: u32(client_id) + self._adverts[client_id] for client_id in present}
        everything = advert_digest(records.values(), len(records))
        context0 = hall.session.context0
        outbound: dict[int, bytes] = {}
        if hall.session.graph == "complete":
            message = encode(AdvertsMessage(VERSION, tag(context0), b"", b"".join(records.values())))
            outbound = dict.fromkeys(present, message)
        else:
            for client_id in present:
                near = b"".join(records[i] for i in hall.topology.neighbours(client_id, self._adverts))
                outbound[client_id] = encode(AdvertsMessage(VERSION, tag(context0), everything, near))
        return Sharing(hall, present, self._adverts, everything), outbound
