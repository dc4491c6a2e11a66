"""Sessions of more than 200 clients over Flower's messages: each masks with some others, not with all."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bits_app
import msgspec
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from forked_starts import forked_starts
from loop_grid import LoopGrid

from prism_crypto import CountSpec, Identity, Policy, Roster, Session
from prism_privacy import Accountant, InvalidParameter, MaskRelease, verify_ledger
from prism_secure.audit.run_audit import audit_run, summary
from prism_secure.config import dump_config
from prism_secure.errors import AgreementError
from prism_secure.flower import SecureSum, SecureSumGrid, server_app
from prism_secure.flower.recipe.messages import check_session
from prism_secure.flower.secure_aggregation import client as sum_client
from prism_secure.flower.secure_aggregation import messages as sum_messages
from prism_secure.flower.secure_aggregation import server
from prism_secure.flower.secure_aggregation.link import ask
from prism_secure.plug_in import track
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.moment_sum import open_moments
from prism_secure.rounds.simulation import open_securely
from prism_secure.run_folder.enrolment import enroll, enroll_simulated
from prism_secure.run_folder.folder import read_records

from .recipe_place import FEDERATION, Place, garbled, recipe_of
from .test_measured_app import MEASURED

CLIENTS, SIZE = 201, 5
DROPS, DEMANDS = 9, 7
HOW = {"min_survivors": CLIENTS - 2, "colluders": 2}


class Many:
    """201 enrolled clients, in as many processes as there are cores, as in a simulation."""

    def __init__(self, root: Path) -> None:
        policy = Policy(min_survivors=100, min_cohort=98, colluders=2, mode="semi_honest")
        self.roster = enroll_simulated(root, "many", CLIENTS, policy)
        # The threshold of a complete graph: no sparse one has it, among so few neighbours.
        demanding = root / f"{DEMANDS:02d}" / "policy.json"
        demanding.unlink()
        msgspec.structs.replace(policy, threshold=CLIENTS // 2 + 1).save(demanding)
        self.config = {"clients-folder": str(root)}
        self.grid = LoopGrid(bits_app.app, dict.fromkeys(range(1000, 1000 + CLIENTS), root))
        for partition, context in enumerate(self.grid.contexts.values()):
            context.node_config = {"partition-id": partition, "num-partitions": CLIENTS}
            context.run_config = self.config
        self.rounds = itertools.count(1)

    def options(self, **options: Any) -> dict[str, Any]:
        return {"run_config": self.config, "timeout": 900, "poll": 0.01, **HOW, **options}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    with forked_starts():
        yield Many(tmp_path_factory.mktemp("many"))


def model() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"x": Array(np.zeros(SIZE, np.float32))})})


def dropping(node: int, kind: str, reply: Message) -> Message:
    """From its upload on nothing of one client is read, which is as good as silence: and nobody waits."""
    if node == 1000 + DROPS and kind in ("train.upload", "train.confirm", "train.unmask"):
        reply.content["secure_sum"]["message"] = b"garbage"
    return reply


@pytest.mark.parametrize(("mode", "graph"), [("semi_honest", "harary"), ("active", "chosen")])
def test_the_sum_of_201_clients_is_exact_and_each_masks_with_a_few(many: Many, mode: str, graph: str) -> None:
    """One drops out; and one that demands as many shares as a complete graph has takes no part."""
    many.grid.tamper = dropping
    summed = SecureSum(many.grid, many.roster, "many", mode=mode, **many.options())
    result = summed.open(model(), CountSpec(SIZE), round=next(many.rounds))
    survivors = tuple(client for client in range(CLIENTS) if client not in (DROPS, DEMANDS))
    assert result.survivors == survivors
    bits = [bits_app.bits_of(client, "x", (SIZE,)) for client in survivors]
    assert result.counts.tolist() == np.sum(bits, axis=0, dtype=int).tolist()
    session = summed.session
    plan = Session.plan(
        session.spec, many.roster.ids, federation="many", number=1, mode=mode, roster=many.roster, **HOW
    )
    assert shape_of(session) == shape_of(plan)
    assert session.graph == graph
    assert session.degree <= 10
    assert max(result.uplink_bytes.values()) < 138 * (CLIENTS - 1) / 4, "less than shares for all others"
    (reason,) = {
        reply.error.reason
        for reply in many.grid.replies
        if reply.has_error() and reply.metadata.src_node_id == 1000 + DEMANDS
    }
    assert f"demands threshold of at least 101, the session has {session.threshold}" in reason
    many.grid.replies.clear()


def test_a_release_that_pays_for_no_sparse_graph_is_refused_before_an_upload_is_asked_for(many: Many) -> None:
    costs, release = track(Accountant(1e-5), colluders=2), MaskRelease(flip=0.25, clip=1.0, cohort=197)
    many.grid.sent.clear()
    grid = SecureSumGrid(
        many.grid,
        many.roster,
        "many",
        mode="semi_honest",
        rounds_before=next(many.rounds) - 1,
        charge=lambda clients: costs.spent(release, clients),
        **many.options(),
    )
    with pytest.raises(InvalidParameter, match=r"sum_failure=2\*\*-40, or the sum graph=\"complete\""):
        grid.send_and_receive([Message(model(), node, "train") for node in many.grid.contexts])
    assert {kind for _, kind in many.grid.sent} == {"train.hello", "train.advertise", "train.share"}


def shape_of(session: Session) -> dict[str, Any]:
    names = ("graph", "degree", "threshold", "min_survivors", "min_cohort", "colluders", "mode", "suite")
    return {name: getattr(session, name) for name in (*names, "spec", "invited")}


class Planned(Exception):
    """A session was planned, its only argument; nothing of it need run."""


def planned(session: Session, **_: Any) -> None:
    raise Planned(session)


LARGE = [
    f"federation.clients={CLIENTS}",
    f"secure_sum.min_survivors={CLIENTS - 4}",
    "privacy.colluders=10",
]
SUMMED = ["privacy.record_epsilon=10", "privacy.record_release=summed"]


@pytest.mark.parametrize(
    ("settings", "graph"),
    [
        (["secure_sum.mode=active"], "complete"),
        ([*LARGE, "secure_sum.mode=active"], "chosen"),
        ([*LARGE, "secure_sum.mode=active", "secure_sum.threshold=150"], "complete"),
        ([*LARGE, "secure_sum.mode=semi_honest"], "harary"),
        ([*LARGE, *SUMMED, "secure_sum.mode=active"], "complete"),  # the moments, before round 1
        ([*LARGE, *SUMMED, "secure_sum.mode=semi_honest"], "complete"),
    ],
)
def test_a_recipe_over_flower_plans_the_session_that_it_has_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], graph: str
) -> None:
    config = recipe_of(tmp_path / "data", *settings, images=402)
    (tmp_path / "recipe.toml").write_text(dump_config(config))
    clients = range(config.federation.clients)
    roster = Roster({client: Identity.generate(client).public_key for client in clients})
    enroll(tmp_path / "server", FEDERATION, roster, None)
    nodes = {1000 + client: client for client in clients}
    monkeypatch.setattr(SecureSum, "_introduced", lambda *_: nodes)
    for module in (server, importlib.import_module("prism_crypto.secure_sum")):
        monkeypatch.setattr(module, "SecureSumServer", planned)
    grid: Any = SimpleNamespace(get_node_ids=lambda: list(nodes), run=SimpleNamespace(run_id=7))
    paths = {"folder": "server", "recipe": "recipe.toml", "out": "run"}
    told = {name: str(tmp_path / path) for name, path in paths.items()}
    with pytest.raises(Planned) as theirs:
        server_app.main(grid, Context(7, 1, {}, RecordDict(), told))

    recipe = Components(config)
    if config.opens_moments:
        release = recipe.record_release
        shares = [SimpleNamespace(share=lambda: np.zeros(release.plan.size, int)) for _ in clients]
        with pytest.raises(Planned) as ours:
            open_moments(release, shares, tmp_path / "alone", FEDERATION)
    else:
        broadcast = Broadcast(FEDERATION, 1, np.full(recipe.sent_bits, 0.5))
        bits = [lambda: np.zeros(recipe.sent_bits, int)] * len(clients)
        with pytest.raises(Planned) as ours:
            open_securely(config, broadcast, bits)
    (one,), (other,) = ours.value.args, theirs.value.args
    assert one.graph == graph
    assert shape_of(one) == shape_of(other)


def test_a_recipe_of_201_active_clients_charges_for_the_graph_that_they_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One drops out. Each demands the cohort that the graph guarantees, which is below that of survivors."""
    monkeypatch.setattr(sum_client, "ask", lambda _, *request: ask(str(tmp_path), *request))
    graph = ["federation.rounds=1", "metrics.every=1", "secure_sum.mode=active"]
    cohort = 131
    policy = Policy(min_survivors=cohort + 10, min_cohort=cohort, colluders=10)
    place = Place(tmp_path, *MEASURED, *LARGE, *graph, test_coins=False, images=2 * CLIENTS, policy=policy)
    place.grid.tamper = lambda node, kind, reply: (
        garbled(reply) if (node, kind) == (100 + DROPS, "train.upload") else reply
    )
    place.train()
    (record,) = read_records(place.out)
    assert record.survivors == CLIENTS - 1
    assert place.config.cohort == cohort
    for folder in (place.out, tmp_path / "00", tmp_path / "200"):
        entry = verify_ledger(folder / "ledger.jsonl").entries[0]
        assert entry.cohort == cohort
        assert entry.release["sum_failure"] == 2.0**-40
    audit = audit_run(place.out)
    assert audit.verdict == "clean", summary(audit)


@pytest.mark.parametrize(
    ("offered", "mine", "taken"),
    [
        ({"graph": "chosen", "cohort": 191}, {"graph": "complete", "cohort": 191}, False),
        ({"graph": "harary", "cohort": 191}, {"graph": "chosen", "cohort": 191}, False),
        ({"graph": "complete", "cohort": 191}, {"graph": "chosen", "cohort": 131}, True),
        ({"graph": "chosen", "cohort": 131}, {"graph": "chosen", "cohort": 131}, True),
        ({"graph": "chosen", "cohort": 130}, {"graph": "chosen", "cohort": 131}, False),
        ({"graph": "complete", "cohort": 131}, {"graph": "complete", "cohort": 187}, False),  # the moments'
    ],
)
def test_a_client_of_a_recipe_answers_on_no_graph_that_epsilon_does_not_count_on(
    offered: dict[str, Any], mine: dict[str, Any], taken: bool
) -> None:
    asked = {"round": 1, "dimension": 9, "bound": 1}
    content = RecordDict({sum_messages.RECORD: ConfigRecord({**asked, **offered})})
    if taken:
        check_session(content, **asked, **mine)
        return
    with pytest.raises(AgreementError, match="epsilon of this recipe counts on a"):
        check_session(content, **asked, **mine)
