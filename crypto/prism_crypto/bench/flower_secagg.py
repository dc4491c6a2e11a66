"""Flower's SecAgg+, driven stage by stage, for the benchmark to stand beside.

The clients' stages are Flower's own functions, called without its messages, its network and its logging; the
server's are the functions that its workflow calls, in that order. So what is left out is to Flower's credit.
Written against flwr 1.41; nothing here is imported unless flwr is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from typing import Any

import numpy as np

__all__ = ["FlowerSession", "flower_version"]

_MODULUS, _TARGET, _CLIP = 1 << 32, 1 << 22, 8.0
"""Flower's defaults."""


def flower_version() -> str | None:
    """The installed version of flwr, or None."""
    if importlib.util.find_spec("flwr") is None:
        return None
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from importlib.metadata import version

    return version("flwr")


class FlowerSession:  # pragma: no cover - needs flwr; its test is marked so
    """One session of SecAgg+ among ``n`` clients, all neighbours, with vectors of dimension ``d``.

    Args:
        n: clients.
        d: coordinates, sent as float32 zeros and ones.
        dropped: that many clients do not upload.

    Attributes:
        seconds: for each stage one entry a client: setup, share, upload, unmask; and one entry ``server``.
        upload_bytes: length of the arrays in one upload.
    """

    def __init__(self, n: int, d: int, dropped: int = 0) -> None:
        load = importlib.import_module
        self._mod: Any = load("flwr.client.mod.secure_aggregation.secaggplus_mod")
        self._key: Any = load("flwr.common.secure_aggregation.secaggplus_constants").Key
        self._n, self._d, self._dropped = n, d, dropped
        self._threshold = 2 * n // 3 + 1
        self.seconds: dict[str, list[float]] = {}
        self.upload_bytes = 0

    def run(self, *, until: str = "unmask") -> FlowerSession:
        """Run the session up to a stage; returns itself."""
        mod, key, n = self._mod, self._key, self._n
        setup = {
            key.SAMPLE_NUMBER: n,
            key.SHARE_NUMBER: n,
            key.THRESHOLD: self._threshold,
            key.CLIPPING_RANGE: _CLIP,
            key.TARGET_RANGE: _TARGET,
            key.MOD_RANGE: _MODULUS,
            key.MAX_WEIGHT: 1.0,
        }
        states = [mod.SecAggPlusState(nid=i + 1) for i in range(n)]
        keys = {}
        for state in states:
            reply = self._lap("setup", mod._setup, state, setup)
            keys[str(state.nid)] = (reply[key.PUBLIC_KEY_1], reply[key.PUBLIC_KEY_2])

        boxes: dict[int, tuple[list[int], list[bytes]]] = {state.nid: ([], []) for state in states}
        for state in states:
            reply = self._lap("share", mod._share_keys, state, keys)
            for to, text in zip(reply[key.DESTINATION_LIST], reply[key.CIPHERTEXT_LIST], strict=True):
                boxes[to][0].append(state.nid)
                boxes[to][1].append(text)
        if until == "share":
            return self

        common: Any = importlib.import_module("flwr.common")
        vector = np.random.default_rng(0).integers(0, 2, self._d).astype(np.float32)
        parameters = common.ndarrays_to_parameters([vector])
        total: list[Any] | None = None
        arithmetic: Any = importlib.import_module("flwr.common.secure_aggregation.ndarrays_arithmetic")
        alive = states[self._dropped :]
        for state in alive:
            sources, texts = boxes[state.nid]
            config = {key.SOURCE_LIST: sources, key.CIPHERTEXT_LIST: texts}
            reply = self._lap("upload", mod._collect_masked_vectors, state, config, 1, parameters)
            self.upload_bytes = sum(map(len, reply[key.MASKED_PARAMETERS]))
            if until == "upload":
                return self
            start = time.process_time()
            arrays = [common.bytes_to_ndarray(part) for part in reply[key.MASKED_PARAMETERS]]
            total = arrays if total is None else arithmetic.parameters_addition(total, arrays)
            self._add("server", time.process_time() - start)

        dead = [state.nid for state in states[: self._dropped]]
        lists = {key.ACTIVE_NODE_ID_LIST: [state.nid for state in alive], key.DEAD_NODE_ID_LIST: dead}
        collected: dict[int, list[bytes]] = {state.nid: [] for state in states}
        for state in alive:
            reply = self._lap("unmask", mod._unmask, state, lists)
            for owner, share in zip(reply[key.NODE_ID_LIST], reply[key.SHARE_LIST], strict=True):
                collected[owner].append(share)
        start = time.process_time()
        self._open(arithmetic.parameters_mod(total, _MODULUS), collected, frozenset(dead), keys)
        self._add("server", time.process_time() - start)
        return self

    def _open(
        self,
        total: list[Any],
        collected: dict[int, list[bytes]],
        dead: frozenset[int],
        keys: dict[str, tuple[bytes, bytes]],
    ) -> None:
        """The body of Flower's ``unmask_stage``."""
        load = importlib.import_module
        arithmetic: Any = load("flwr.common.secure_aggregation.ndarrays_arithmetic")
        shamir: Any = load("flwr.common.secure_aggregation.crypto.shamir")
        utils: Any = load("flwr.common.secure_aggregation.secaggplus_utils")
        quantization: Any = load("flwr.common.secure_aggregation.quantization")
        mod = self._mod
        shapes = arithmetic.get_parameters_shape(total)
        for nid, shares in collected.items():
            secret = shamir.combine_shares(shares)
            if nid not in dead:
                mask = utils.pseudo_rand_gen(secret, _MODULUS, shapes)
                total = arithmetic.parameters_subtraction(total, mask)
                continue
            for peer in collected:
                if peer == nid or peer in dead:
                    continue
                shared = mod.generate_shared_key(
                    mod.bytes_to_private_key(secret), mod.bytes_to_public_key(keys[str(peer)][0])
                )
                mask = utils.pseudo_rand_gen(shared, _MODULUS, shapes)
                combine = arithmetic.parameters_addition if nid > peer else arithmetic.parameters_subtraction
                total = combine(total, mask)
        _, opened = arithmetic.factor_extract(arithmetic.parameters_mod(total, _MODULUS))
        quantization.dequantize(opened, _CLIP, _TARGET)

    def _lap(self, stage: str, function: Any, *arguments: Any) -> Any:
        start = time.process_time()
        value = function(*arguments)
        self._add(stage, time.process_time() - start)
        return value

    def _add(self, stage: str, seconds: float) -> None:
        self.seconds.setdefault(stage, []).append(seconds)
