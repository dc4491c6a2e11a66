"""Broken if a message says anything of a client's vector, or of the client, beside its place in the session.

Sizes, presence and every byte but the masked words must be the same whatever is summed: no example counts, no
losses, no norms, no weights.
"""

from __future__ import annotations

import numpy as np
import pytest
from chosen import SMALL, rehearsed
from forgery import take_apart
from rehearsal import SERVER

from prism_crypto.spec import CountSpec
from prism_crypto.stage import Stage

MODES = ["active", "semi_honest", "chosen"]
IDS = range(SMALL["n"])


def transcript(values, mode: str, bound: int = 9) -> dict:
    session, seen = rehearsed(mode, spec=CountSpec(300, bound)), {}
    if values is not None:
        session.values = values
    session.play(intercept=lambda *message: seen.setdefault(message[:3], bytes(message[3])))
    return seen


def vectors(kind: str) -> dict[int, np.ndarray]:
    draw = np.random.default_rng(len(kind))
    return {
        "zeros": {i: np.zeros(300, dtype=np.uint8) for i in IDS},
        "all at the bound": {i: np.full(300, 9, dtype=np.int64) for i in IDS},
        "random": {i: draw.integers(0, 10, 300, dtype=np.int16) for i in IDS},
        "one client alone": {i: np.full(300, 9 * (i == 3), dtype=np.int32) for i in IDS},
    }[kind]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["all at the bound", "random", "one client alone"])
def test_nothing_but_the_masked_words_depends_on_the_vectors(kind, mode):
    """The same randomness with other vectors: all other messages are the same to the last byte."""
    one, other = transcript(vectors("zeros"), mode), transcript(vectors(kind), mode)
    assert one.keys() == other.keys()
    for (stage, sender, receiver), message in one.items():
        changed = other[stage, sender, receiver]
        if stage is Stage.UPLOAD and receiver is SERVER:
            assert len(message) == len(changed)
            fields, others = take_apart(message), take_apart(changed)
            assert fields[:2] == others[:2]
            _, lacking, *vouchers, signature = fields[2]  # and no other field
            assert lacking == others[2][1] == b""
            assert vouchers == others[2][2:-1]
            assert len(vouchers) == (mode == "chosen")
            assert len(signature) == (0 if mode == "semi_honest" else 64)
        else:
            assert message == changed, f"{stage.value} from {sender} to {receiver}"


# On a chosen graph each has as many neighbours as chose it, and as it chose.
@pytest.mark.parametrize("mode", ["active", "semi_honest"])
def test_messages_of_a_stage_have_one_size_for_all_clients(mode):
    seen = transcript(None, mode)
    for stage in {key[0] for key in seen}:
        up = {
            len(message) for (at, _, receiver), message in seen.items() if at is stage and receiver is SERVER
        }
        down = {len(message) for (at, sender, _), message in seen.items() if at is stage and sender is SERVER}
        assert len(up) == 1
        assert len(down) <= 1


@pytest.mark.parametrize("mode", MODES)
def test_an_upload_is_its_words_a_signature_and_twenty_odd_bytes(mode):
    seen = transcript(None, mode)
    session = rehearsed(mode, spec=CountSpec(300, 9))
    words = session.session.packing.length
    for i in session.ids:
        message = seen[Stage.UPLOAD, i, SERVER]
        kind, tag, fields = take_apart(message)
        assert (kind, len(tag), len(fields[0])) == (6 if mode == "chosen" else 3, 16, 8 * words)
        more = {"active": 68, "semi_honest": 4, "chosen": 70 + 20 * (len(session.ids) - 1)}[mode]
        assert len(message) <= 8 * words + 32 + more


@pytest.mark.parametrize("mode", MODES)
def test_no_client_sends_more_messages_than_another(mode):
    seen = transcript(None, mode)
    senders = {sender for _, sender, _ in seen if sender is not SERVER}
    sent = {i: sorted(at.value for (at, sender, _) in seen if sender == i) for i in senders}
    assert len({tuple(stages) for stages in sent.values()}) == 1
