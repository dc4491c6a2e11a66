"""prism-secure's own `ClientApp`: one client of a recipe (`recipe.client`), where its data is.

The client's folder holds, beside what `prism_secure.run_folder.enrolment` lists,

    recipe.toml      the configuration that this client has agreed to; the server has its own copy, and who
                     differs in `[mask]` or `[privacy]` takes part in no sum
    coins.key, state.safetensors, moments, outbox/   what `prism_secure.rounds.client.Client` keeps
    ledger.jsonl     what this client has released, and what that cost; charged before an upload can leave

Node configuration: ``folder="…"`` names the folder. ``own-data="1200 950 1000"``: all images of `[data]` are
this client's, where otherwise `[data]` is one data set that the recipe shares out among the clients by their
ids; the numbers are those of all clients' images, by id, which one release over all of them depends on, and
may be just ``true`` with `privacy.record_release = "client"`.
``test-coins="hex"`` (64 digits): known coins; the ledger then claims no epsilon.

Flower imports this module for every message, so it imports no torch; the client process, which trains, does.
"""

from __future__ import annotations

import msgspec
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from prism_crypto import Mode, Policy, Roster
from prism_secure.config import Config, load_config
from prism_secure.config.plugged import origin
from prism_secure.errors import AgreementError, ConfigError
from prism_secure.flower.secure_aggregation.client import client_folder, secure_sum
from prism_secure.run_folder.enrolment import Enrolment

app = ClientApp()


def _binding(context: Context) -> bytes:
    """What this client agrees to, checked before its advert leaves, when nothing is lost yet."""
    folder = client_folder(context)
    config = load_config(folder / "recipe.toml")
    enrolment = Enrolment.load(folder)
    check_recipe(config, enrolment.roster)
    check_policy(config, enrolment.policy)
    return binding(config)


@secure_sum(app, bound=None, binding=_binding)  # what is asked for has a bound, and is held against it
def train(message: Message, context: Context) -> Message:
    """Answer the broadcast; the reply's one array is this client's randomized bits, uint8 (d,), or (m,) of a
    measured round.

    Before round 1 it may be this client's share of the noisy moments that is asked for, int64 (size,).
    """
    from prism_secure.flower.recipe.client import client_of

    values = client_of(client_folder(context), context.node_config).answer(message.content)
    return Message(RecordDict({"summed": ArrayRecord({"values": Array(values)})}), reply_to=message)


def check_policy(config: Config, policy: Policy) -> None:
    """Refuse unless a client's policy insists on all that the recipe's epsilon assumes.

    Raises:
        AgreementError: it accepts less.
    """
    if policy.min_cohort < config.cohort:
        raise AgreementError(
            f"epsilon of this recipe assumes sums over {config.cohort} honest clients, this client's "
            f"policy insists on {policy.min_cohort} only"
        )
    if policy.colluders < config.privacy.colluders:
        raise AgreementError(
            f"epsilon of this recipe assumes that up to {config.privacy.colluders} clients collude, this "
            f"client's policy insists on sessions that bear {policy.colluders} only"
        )
    if config.secure_sum.mode == "active" and policy.mode is not Mode.ACTIVE:
        raise AgreementError(
            f"this recipe's sums are active, this client's policy lets {policy.mode.value} ones pass"
        )
    if policy.suite not in ("x25519+ml-kem-768", config.secure_sum.suite):
        raise AgreementError(
            f"this recipe's keys are {config.secure_sum.suite}, this client's policy lets sessions of "
            f"{policy.suite} pass; enrol it with --hybrid-keys"
        )


def check_recipe(config: Config, roster: Roster) -> None:
    """Refuse unless a recipe can be trained by the clients of a roster across machines.

    Raises:
        ConfigError: it can't.
    """
    if roster.ids != tuple(range(config.federation.clients)):
        raise ConfigError(
            f"the recipe is for clients 0 to {config.federation.clients - 1}, the roster pins "
            f"{', '.join(map(str, roster.ids))}"
        )
    if config.secure_sum.simulate:
        raise ConfigError(
            "secure_sum.simulate is for `prism-secure run`; across machines nothing but the secure sum hides "
            "what a client sends, so it must be false"
        )
    if config.secure_sum.dropouts:
        raise ConfigError(
            "secure_sum.dropouts is for `prism-secure run`; across machines clients drop out by themselves: "
            f"it must be 0, got {config.secure_sum.dropouts:g}"
        )
    if config.federation.behaviour not in ("train", "measure"):  # whose agreement `binding` knows
        raise ConfigError(
            "federation.behaviour must be 'train' or 'measure' across machines, others are for "
            f"`prism-secure run`; got {config.federation.behaviour!r}"
        )
    if config.own_features:
        raise ConfigError(
            "features.extractors of your own are for `prism-secure run`, where one machine has the code; got "
            f"{', '.join(config.own_features)}"
        )
    if config.opens_moments and config.privacy.record_store is not None:
        raise ConfigError(
            "privacy.record_store is for one machine: across machines each federation sums the noisy moments "
            "anew, and each such sum is charged; leave it out"
        )
    if config.mask.score_layers:
        raise ConfigError(
            "mask.score_layers is for `prism-secure run`; across machines every layer sends bits, got "
            f"{config.mask.score_layers}"
        )


def binding(config: Config) -> bytes:
    """What all clients must agree on beside the broadcast: how masks are made and randomized."""
    privacy = msgspec.structs.replace(config.privacy, record_store=None)  # a path of one machine
    agreed: dict[str, object] = {"mask": config.mask, "privacy": privacy}
    if config.measures:  # the clips of every round follow from these, and what one of them acts on
        agreed |= {"measured": config.measured, "rounds": config.federation.rounds}
        agreed["record"] = config.record
    if not config.everybody:  # who is in which round follows from these, and so what each is charged
        federation = config.federation
        agreed["invitations"] = [federation.clients, config.invited, federation.rounds, federation.seed]
    if config.own_network:  # the same code, too
        agreed["network"] = origin(config.model.network)
    return msgspec.json.encode(agreed)
