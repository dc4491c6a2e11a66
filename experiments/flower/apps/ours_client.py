"""Random bits, summed by prism-secure."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from measured import note, timed

from prism_secure.flower import party, secure_sum

app = ClientApp(mods=[timed])
_last: list[Context] = []


@secure_sum(app)
def train(message: Message, context: Context) -> Message:
    _last[:] = [context]
    dimension = int(context.run_config["dimension"])
    bits = np.random.default_rng(context.node_id).integers(0, 2, dimension, dtype=np.uint8)
    return Message(RecordDict({"arrays": ArrayRecord({"x": Array(bits)})}), reply_to=message)


def _timed(method: Any) -> Any:
    """The party's own work, beside that of the processes of the messages; not the training's."""

    def measured(*arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*arguments)
        finally:
            if _last:
                note(_last[0], "party", time.thread_time() - began)

    return measured


# The first session of a party is a warm-up: it imports this module in the middle of its first request.
party._Member.begin = _timed(party._Member.begin)
party._Member.step = _timed(party._Member.step)
