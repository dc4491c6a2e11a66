"""The client's side of the secure sum, for any app: `@secure_sum(app)` in place of `@app.train()`.

The function below it trains and replies as it always did, with one `ArrayRecord` in the keys and shapes of
the record that it was sent: integers 0..bound, or real numbers for a codec. But its reply does not leave: the
five stages of the secure sum go over `app`, and the server gets the sum over all clients.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.message_pb2 import Context as ContextProto

from prism_crypto import FixedPoint, Identity, Stage
from prism_crypto.hello import say_hello
from prism_secure.errors import ConfigError
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation.link import ask
from prism_secure.flower.secure_aggregation.terms import Codec, Metrics, Terms, Weight
from prism_secure.flower.secure_aggregation.wire import Begin, Step, apart
from prism_secure.run_folder.enrolment import read_membership

Train: TypeAlias = Callable[[Message, Context], Message]
Binding: TypeAlias = Callable[[Context], bytes]


@dataclass(frozen=True)
class Insisted:
    """What a client insists on in each session: what is summed, and what is bound."""

    terms: Terms
    binding: Binding


_insisted: dict[str, Insisted] = {}


def secure_sum(
    app: ClientApp,
    *,
    bound: int | None = 1,
    codec: Codec = None,
    weight: Weight = None,
    max_weight: int | FixedPoint | None = None,
    metrics: Metrics | None = None,
    binding: Binding | None = None,
) -> Callable[[Train], Train]:
    """Let `app` take part in secure sums of what the decorated function replies.

    The client's folder (see `prism_secure.run_folder.enrolment`) is named by ``folder`` in the node's
    configuration: ``flower-supernode --node-config 'folder="…"'``; in a simulation ``clients-folder`` in the
    run's configuration names the folder that holds ``00``, ``01``, … of all clients.

    The function runs in a process of its own (see `process` in this room), so it must be a
    function of a module. What it leaves in ``context.state`` is kept, as usual; metrics in its reply that the
    arguments do not name are dropped: nothing but the sum leaves.

    What it is sent holds one record more: ``message.content["secure_sum"]["round"]`` is the round of the
    session; ``graph`` and ``cohort`` say who masks with whom, and how many honest clients the sum surely
    holds, for a function that counts on either. A client uploads once a round, in rounds that only rise (0:
    the server does not number them). A function that may give the same answer twice must check that it is
    asked in the round which that answer is for: the difference of two sums over other survivors would be
    what one client has sent.

    What else a server could tell one node and not another (a learning rate of 0 to all but one, whose update
    would then be the sum) is in the session's hash, content, run and run configuration, or is left out: of
    the metadata the times are this client's own and the group is the round. Clients that were told different
    things take part in no sum.

    Args:
        app: the app whose clients take part; it may have no other functions for ``train``'s stages.
        bound: the largest integer; sessions of another are refused: a server that may choose it learns where
            a client's largest value lies. None: the function itself holds
            ``message.content["secure_sum"]["bound"]`` against what it is asked for.
        codec: the arrays are real numbers, and this is the grid on which they are added; `SecureSumGrid` is
            given the same one. ``"signs"``: they are -1, 0 and +1 (signSGD), added exactly.
        weight: the metric of the reply by which the mean is weighted, most often ``"num-examples"``; its sum
            opens, nobody's own does. ``"uniform"``: all clients count alike, whatever metrics they reply.
            None: the same, but a reply with ``num-examples`` is refused: a strategy would have weighed by it.
        max_weight: the largest weight of one client, fixed without a look at the data: a client above it
            drops out, which everybody sees.
        metrics: what else of the reply's metrics is summed in the same session: by name the largest whole
            number of one client (the server gets their sum), or a `FixedPoint` (it gets their mean, weighted
            as the arrays' is). No ε of a release covers them.
        binding: from the context, what else all clients must agree on, as this client knows it by itself:
            enters the session's hash beside the run configuration. By default nothing.

    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @secure_sum(app)
    ... def train(message, context):
    ...     ...
    """

    terms = Terms.of(bound, codec, weight, max_weight, metrics)

    @app.train(sum_messages.HELLO)
    def hello(message: Message, context: Context) -> Message:
        folder, _ = _whose(context)
        federation, _ = read_membership(Path(folder))
        identity = Identity.load(Path(folder) / "identity.json")
        challenge, channel = sum_messages.unpacked(message.content), sum_messages.channel(context.node_id)
        signature = say_hello(identity, federation, challenge, channel)
        return Message(sum_messages.packed(signature, identity.client_id), reply_to=message)

    def register(train: Train) -> Train:
        reference = f"{train.__module__}:{train.__qualname__}"
        _insisted[reference] = Insisted(terms, binding or _nothing)
        source = train.__code__.co_filename

        @app.train(Stage.ADVERTISE.value)
        def begin(message: Message, context: Context) -> Message:
            if train.__module__ == "__main__" or "<locals>" in train.__qualname__:
                raise ConfigError(f"{reference} can't be imported by another process: put it into a module")
            folder, owner = _whose(context)
            bare, arrays = apart(message)
            request = Begin(
                folder,
                reference,
                [entry for entry in sys.path if entry],
                bare,
                [len(content) for content in arrays],
                context_to_proto(context).SerializeToString(),
            )
            reply = ask(f"{owner}\0{source}", request, arrays)
            return Message(sum_messages.packed(reply.message, reply.client), reply_to=message)

        def step(stage: Stage) -> None:
            @app.train(stage.value)
            def go_on(message: Message, context: Context) -> Message:
                folder, owner = _whose(context)
                request = Step(folder, stage, sum_messages.unpacked(message.content))
                reply = ask(f"{owner}\0{source}", request)
                if reply.context:
                    context.state = context_from_proto(ContextProto.FromString(reply.context)).state
                return Message(sum_messages.packed(reply.message, reply.client), reply_to=message)

        for stage in Stage:
            if stage is not Stage.ADVERTISE:
                step(stage)
        return train

    return register


def insisted_on(reference: str) -> Insisted:
    """What the function of this reference was registered with."""
    return _insisted[reference]


def client_folder(context: Context) -> Path:
    """The folder of the client that a context belongs to.

    Raises:
        ConfigError: neither the node's configuration nor the run's names one.
    """
    return Path(_whose(context)[0])


def _whose(context: Context) -> tuple[str, str]:
    """The client's folder, and whose client process it shares: its own, or in a simulation a worker's."""
    named = context.node_config.get("folder")
    if named is not None:
        folder = str(Path(str(named)).expanduser().resolve())
        return folder, folder
    root = context.run_config.get("clients-folder")
    partition = context.node_config.get("partition-id")
    if root is None or partition is None:
        raise ConfigError(
            "this node does not know its client's folder: start it with --node-config 'folder=\"…\"'; "
            "in a simulation set clients-folder in the run's configuration"
        )
    resolved = Path(str(root)).expanduser().resolve()
    worker = cast(int, partition) % (os.cpu_count() or 1)
    return str(resolved / f"{cast(int, partition):02d}"), f"{resolved}\0{worker}\0{context.run_id}"


def _nothing(context: Context) -> bytes:
    return b""
