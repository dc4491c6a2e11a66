"""Random bits, summed by prism-secure."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from measured import note, seconds_of, timed, training

from prism_secure.flower import secure_sum
from prism_secure.flower.secure_aggregation import process as sum_process

app = ClientApp(mods=[timed])
_last: list[Context] = []


@secure_sum(app)
def train(message: Message, context: Context) -> Message:
    _last[:] = [context]
    with training():
        dimension = int(context.run_config["dimension"])
        bits = np.random.default_rng(context.node_id).integers(0, 2, dimension, dtype=np.uint8)
    return Message(RecordDict({"arrays": ArrayRecord({"x": Array(bits)})}), reply_to=message)


def _timed(function: Any) -> Any:
    """The client process's own work, beside that of the processes of the messages."""

    def measured(*arguments: Any) -> Any:
        result, seconds = seconds_of(lambda: function(*arguments))
        if _last:
            note(_last[0], f"client process: {function.__name__}", seconds)
        return result

    return measured


# A client process imports this module in the middle of its first session, which is a warm-up.
sum_process.receive_request = _timed(sum_process.receive_request)
sum_process._Client.begin = _timed(sum_process._Client.begin)
sum_process._Client.step = _timed(sum_process._Client.step)
sum_process._vector = _timed(sum_process._vector)
