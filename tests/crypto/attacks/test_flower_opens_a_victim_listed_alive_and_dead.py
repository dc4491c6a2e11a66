"""For comparison: the same lie, told to Flower's SecAgg+, opens the victim's vector exactly.

Needs flwr. The clients are Flower's own, unchanged
(``secaggplus_mod``); the server is honest up to the last stage, where it lists the victim among the
active nodes and among the dead ones. Nothing in the client compares the two lists.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("flwr")
# Flower's own imports warn; that is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

NODES = (101, 102, 103, 104)
VICTIM = 103
CLIP, TARGET_RANGE, MODULUS = 1.0, 1 << 16, 1 << 24


class FlowerClient:
    """One node: Flower's SecAgg+ mod around an application that returns a fixed vector."""

    def __init__(self, node: int, vector: np.ndarray) -> None:
        from flwr.app import Context, RecordDict

        self.node, self.vector = node, vector
        self.context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})

    def application(self, message, context):
        from flwr.app import Message
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.compat.common import recorddict_compat

        answer = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.vector]), 1, {})
        return Message(recorddict_compat.fitres_to_recorddict(answer, keep_input=False), reply_to=message)

    def ask(self, stage: str, **fields):
        from flwr.app import ConfigRecord, Message, Metadata, RecordDict
        from flwr.app.message_type import MessageType
        from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=0,
            dst_node_id=self.node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=3600.0,
            message_type=MessageType.TRAIN,
        )
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord({**fields, Key.STAGE: stage})})
        message = Message(metadata=metadata, content=content)
        reply = secaggplus_mod(message, self.context, self.application)
        return reply.content.config_records[RECORD_KEY_CONFIGS]


def test_flower_opens_a_victim_listed_alive_and_dead():
    from flwr.common import bytes_to_ndarray
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
    from flwr.common.secure_aggregation.quantization import dequantize
    from flwr.common.secure_aggregation.secaggplus_constants import Key, Stage
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

    rng = np.random.default_rng(3)
    vectors = {node: rng.uniform(-0.9, 0.9, 50).astype(np.float32) for node in NODES}
    clients = {node: FlowerClient(node, vectors[node]) for node in NODES}

    setup = {
        Key.SAMPLE_NUMBER: len(NODES),
        Key.SHARE_NUMBER: len(NODES),
        Key.THRESHOLD: 3,
        Key.CLIPPING_RANGE: CLIP,
        Key.TARGET_RANGE: TARGET_RANGE,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    keys = {}
    for node, client in clients.items():
        reply = client.ask(Stage.SETUP, **setup)
        keys[node] = [reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]]

    boxes = {node: ([], []) for node in NODES}
    for node, client in clients.items():
        reply = client.ask(Stage.SHARE_KEYS, **{str(other): list(pair) for other, pair in keys.items()})
        for receiver, box in zip(reply[Key.DESTINATION_LIST], reply[Key.CIPHERTEXT_LIST], strict=True):
            boxes[receiver][0].append(node)
            boxes[receiver][1].append(box)

    masked = {}
    for node, client in clients.items():
        sources, texts = boxes[node]
        reply = client.ask(
            Stage.COLLECT_MASKED_VECTORS, **{Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: texts}
        )
        masked[node] = [bytes_to_ndarray(part) for part in reply[Key.MASKED_PARAMETERS]]

    # The lie: everybody is alive, and the victim is dead as well.
    seed_shares, key_shares = [], []
    lie = {Key.ACTIVE_NODE_ID_LIST: list(NODES), Key.DEAD_NODE_ID_LIST: [VICTIM]}
    for node, client in clients.items():
        if node == VICTIM:
            continue
        reply = client.ask(Stage.UNMASK, **lie)
        shares = reply[Key.SHARE_LIST]
        seed_shares.append(shares[NODES.index(VICTIM)])
        key_shares.append(shares[len(NODES)])

    shapes = [part.shape for part in masked[VICTIM]]
    opened = [
        part - mask
        for part, mask in zip(
            masked[VICTIM], pseudo_rand_gen(combine_shares(seed_shares), MODULUS, shapes), strict=True
        )
    ]
    private = bytes_to_private_key(combine_shares(key_shares))
    for node in NODES:
        if node == VICTIM:
            continue
        shared = generate_shared_key(private, bytes_to_public_key(keys[node][0]))
        sign = 1 if node < VICTIM else -1
        mask = pseudo_rand_gen(shared, MODULUS, shapes)
        opened = [part - sign * noise for part, noise in zip(opened, mask, strict=True)]
    opened = [part % MODULUS for part in opened]

    weight, quantised = opened[0], opened[1:]
    assert np.all(weight == TARGET_RANGE)  # the victim's weight, in the clear
    (recovered,) = dequantize(quantised, CLIP, TARGET_RANGE)
    assert np.abs(recovered - vectors[VICTIM]).max() <= 2 * CLIP / TARGET_RANGE  # its rounding, nothing else
