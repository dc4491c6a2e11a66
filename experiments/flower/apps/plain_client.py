"""As many bytes as a masked upload has, unmasked."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    size = int(context.run_config["reply-bytes"])
    reply = np.random.default_rng(context.node_id).integers(0, 2, size, dtype=np.uint8)
    content = {"arrays": ArrayRecord({"x": Array(reply)}), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)
