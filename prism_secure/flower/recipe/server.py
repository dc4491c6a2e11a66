"""The rounds of a recipe over the nodes of a Flower federation, as the coordinator runs them.

The ledger is charged when it is known whose uploads are in the sum, and before it opens. A round that fails
after an upload may have left, or is killed before the server has trained on what opened, is lost: no client
takes part in it again, so it is charged, recorded with no survivors, and the next round starts from the same
theta, or from what the server's own training on earlier sums makes of it. One that fails before is begun
again. All of it is on disk before it happens, so the same command continues after a crash of anything.

Where a round invites some of the clients, it is those that the same configuration invites in one process, and
who of them is away has dropped out.

With a summed record-level release one session of all clients comes before round 1: the sum of their shares of
the noisy moments. What it opens goes with every theta. A client gives its share once, in the session of round
1, and so its bits of round t in that of t + 1. If that one session is lost after a share may have left, so is
the run: a second share of the same images would be a second release.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, partial
from logging import INFO, WARNING
from pathlib import Path

from flwr.common.logger import log
from flwr.serverapp import Grid

from prism_crypto import CountSpec, Roster, SecureSumError, SecureSumResult, Stage
from prism_crypto.session import GraphKind
from prism_privacy import NoisySums
from prism_privacy.ledger.entry import Coins
from prism_secure.accounting.spending import Spending
from prism_secure.config.invitations import invited
from prism_secure.data.fingerprint import keep_fingerprint
from prism_secure.errors import RoundError, RunFolderError
from prism_secure.flower.client_app import binding
from prism_secure.flower.recipe.client import OwnData
from prism_secure.flower.recipe.messages import write_broadcast, write_request
from prism_secure.flower.secure_aggregation.messages import RunConfig
from prism_secure.flower.secure_aggregation.server import SecureSum
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.model.model_card import model_words
from prism_secure.model.model_file import write_model
from prism_secure.reporting.progress import AS_BEFORE
from prism_secure.rounds.assembly import Clock, close_round, evaluated_if_due, with_metrics
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.evaluation import Evaluation
from prism_secure.rounds.moment_sum import MOMENTS_GRAPH, opened_once, session_began
from prism_secure.rounds.server import Server
from prism_secure.run_folder.environment import keep_environment
from prism_secure.run_folder.folder import RunFolder, read_records, saved_round
from prism_secure.run_folder.history import check_whole
from prism_secure.run_folder.records import RoundRecord

COMMAND = "flwr run (prism_secure.flower.server_app)"


class Rounds:
    """All rounds of one run, from its checkpoint on.

    Args:
        grid, roster: the nodes, and the clients that they may be.
        recipe, run: what to do, and where it is kept.
        run_config: what Flower's run was started with, and all nodes were given.
        timeout, train_timeout, patience, test_coins: see `prism_secure.flower.server_app`.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        recipe: Components,
        run: RunFolder,
        *,
        run_config: RunConfig,
        timeout: float,
        train_timeout: float,
        patience: float,
        test_coins: bool,
    ) -> None:
        self._grid = grid
        self._roster = roster
        self._recipe = recipe
        self._run = run
        self._run_config = run_config
        self._timeout = timeout
        self._train_timeout = train_timeout
        self._patience = patience
        # What other machines release of their own images is known to them alone, unless they say how many.
        unknown = isinstance(recipe, OwnData) and recipe.sizes is None
        self._release = None if unknown else recipe.record_release
        self._moments: NoisySums | None = None
        self._coins: Coins = "test" if test_coins else "secret"
        self._measure = Evaluation(recipe)
        self._server = self._loaded()

    def run_all(self) -> None:
        """Every round that is left, and the model.

        Raises:
            RoundError: too few nodes for too long, or two rounds in a row were lost.
            PrismError, PrivacyError: see their modules.
        """
        recipe, run, server = self._recipe, self._run, self._server
        dimension = recipe.trainer.dimension
        private, begun = run.path / "clients", run.ledger_path.exists()
        keep_fingerprint(private, recipe.config.data, recipe.dataset, partial(log, INFO), begun=begun)
        keep_environment(run.path, COMMAND, recipe.facts, partial(log, INFO), begun=begun)
        own_data = recipe.facts.own_data
        with Spending(
            recipe.config,
            run,
            dimension,
            server.round,
            self._release,
            self._coins,
            own_data,
            recipe.public_sizes,
            recipe.partition.persons,
        ) as spending:
            for note in recipe.notes:
                log(INFO, "%s", note)
            if server.round == 0:
                spending.charge_moments()
            if self._release is not None and self._release.summed:
                self._moments = opened_once(self._release, run.path, self._moment_session)
            planned = spending.planned_rounds
            quality = partial(evaluated_if_due, server, planned, self._measure, run.sample_path)
            while server.round < planned:
                record = with_metrics(self._round(spending), quality)
                server.save(self._next_path)
                run.keep(record)
                self._next_path.replace(run.checkpoint_path)
                as_before = f", {AS_BEFORE}" if record.changed == 0 else ""
                log(INFO, "round %d: %d survivors%s", record.round, record.survivors, as_before)
                if [kept.lost for kept in read_records(run.path)[-2:]] == [True, True]:
                    raise RoundError(
                        "two rounds in a row were lost (the log says why), and each costs epsilon; mend it, "
                        "then the same command goes on"
                    )
            model = (recipe.architecture, recipe.model_seed, server.deployed())
            write_model(run.model_path, *model)
            spending.end(model_words(*model), "")
        run.finish(f"{server.round} of {recipe.config.federation.rounds} rounds")

    def _moment_session(self, leaving: Callable[[], None]) -> SecureSumResult:
        """The session before round 1, begun as often as it fails before a share may have left."""
        release, folder = self._release, self._run.path
        assert release is not None
        config, began = release.config, time.monotonic()
        of_all = self._sum_of(config.moments_survivors, config.moments_threshold, MOMENTS_GRAPH)

        def closed(stage: Stage, clients: tuple[int, ...]) -> None:
            if stage is Stage.SHARE:
                leaving()

        while not session_began(folder):
            self._await_nodes(config.moments_survivors, began)
            try:
                return of_all.open(
                    write_request(release),
                    CountSpec(release.plan.size, release.plan.bound),
                    round=1,
                    binding=binding(config),
                    train_timeout=self._train_timeout,
                    closed=closed,
                )
            except SecureSumError as error:
                if not session_began(folder):
                    self._begin_again(began, "the sum of the noisy moments", error)
                else:
                    log(WARNING, "the sum of the noisy moments is lost: %s", error)
        raise RoundError(
            "the one secure sum of the noisy moments is lost after shares may have left, and others would "
            "cost epsilon on top; put release.moments back into checkpoint/, or enrol the clients anew"
        )

    def _begin_again(self, began: float, what: str, error: SecureSumError) -> None:
        """Wait a little; or, once patience is over, stop the run."""
        if time.monotonic() - began > self._patience:
            raise RoundError(f"{what} does not begin: {error}") from error
        log(WARNING, "%s is begun again: %s", what, error)
        time.sleep(2)

    def _round(self, spending: Spending) -> RoundRecord:
        """One round, begun as often as it fails before an upload may have left."""
        began = time.monotonic()
        broadcast = self._server.broadcast()
        if spending.charged_rounds >= broadcast.round or self._run.uploading == broadcast.round:
            return self._lost(spending, broadcast, began, "the server stopped in the middle of the round")
        while True:
            self._await_nodes(self._recipe.config.min_survivors, began)
            try:
                return self._opened(spending, broadcast, began)
            except SecureSumError as error:
                if self._run.uploading == broadcast.round:
                    return self._lost(spending, broadcast, began, str(error))
                self._begin_again(began, f"round {broadcast.round}", error)

    def _opened(self, spending: Spending, broadcast: Broadcast, began: float) -> RoundRecord:
        config, server = self._recipe.config, self._server
        uploaded = began

        def closed(stage: Stage, clients: tuple[int, ...]) -> None:
            nonlocal uploaded
            if stage is Stage.SHARE:
                self._run.mark_uploading(broadcast.round)
            elif stage is Stage.UPLOAD:
                uploaded = time.monotonic()
                spending.charge(broadcast.round, metrics={"survivors": list(clients)})

        result = self._sum.open(
            write_broadcast(broadcast, self._moments),
            CountSpec(self._recipe.sent_bits),
            round=broadcast.round + self._sessions_before,
            binding=binding(config),
            train_timeout=self._train_timeout,
            invite="roster" if config.everybody else invited(config, broadcast.round),
            closed=closed,
        )
        return close_round(
            self._recipe,
            server,
            broadcast,
            [result],
            moments=self._targets,
            spending=spending,
            clock=Clock(time.monotonic, began, uploaded, opened=time.monotonic()),
        )

    def _lost(self, spending: Spending, broadcast: Broadcast, began: float, why: str) -> RoundRecord:
        """Charge a round that no client will repeat, and go on to the next one."""
        log(WARNING, "round %d is lost: %s", broadcast.round, why)
        spent = spending.charge(broadcast.round, kind="aborted", metrics={"survivors": [], "lost": why})
        server = self._server
        before = server.deployed()
        moved = server.lose(self._targets)
        return RoundRecord(
            round=broadcast.round,
            survivors=0,
            epsilon=spent,
            record=spending.record,
            bits_per_parameter=0.0,
            uplink_bytes=0,
            downlink_bytes=0,
            step=moved.step,
            seconds=time.monotonic() - began,
            secure_sum_seconds=0.0,
            changed=server.changed(before),
            server_loss=moved.loss,
        )

    @cached_property
    def _sum(self) -> SecureSum:
        """That of the rounds. Made after the moments' session, it leaves out whom that has convicted."""
        config = self._recipe.config
        threshold = None if config.sparse else config.threshold  # a sparse graph has one of its own
        return self._sum_of(config.min_survivors, threshold, config.graph)

    def _sum_of(self, min_survivors: int, threshold: int | None, graph: GraphKind) -> SecureSum:
        config = self._recipe.config
        return SecureSum(
            self._grid,
            self._roster,
            self._run.federation,
            run_config=self._run_config,
            mode=config.secure_sum.mode,
            threshold=threshold,
            min_survivors=min_survivors,
            colluders=config.privacy.colluders,
            graph=graph,
            suite=config.secure_sum.suite,
            kept=self._run.blamed_path,
            timeout=self._timeout,
        )

    def _await_nodes(self, least: int, began: float) -> None:
        while (nodes := len(list(self._grid.get_node_ids()))) < least:
            if time.monotonic() - began > self._patience:
                raise RoundError(f"{nodes} nodes are connected, the policy needs {least}")
            time.sleep(2)

    @property
    def _targets(self) -> FeatureMoments | None:
        """What opened before round 1, where the server trains towards it after the last."""
        if self._release is None or self._moments is None or not self._recipe.config.training.end_steps:
            return None
        return FeatureMoments.of_release(self._release.as_opened(self._moments))

    @property
    def _sessions_before(self) -> int:
        """1 where the moments have had a session."""
        return int(self._moments is not None)

    @property
    def _next_path(self) -> Path:
        """The checkpoint of a round whose record is not written yet: a round can't be repeated to make it."""
        return self._run.path / "checkpoint" / "next.safetensors"

    def _loaded(self) -> Server:
        """The server after the last round that was recorded, in a folder that is whole."""
        run, done = self._run, len(read_records(self._run.path))
        if self._next_path.exists() and saved_round(self._next_path) == done:
            self._next_path.replace(run.checkpoint_path)
        charged = len(check_whole(run.path).rounds)
        if not charged <= run.uploading <= charged + 1:
            raise RunFolderError(
                f"{run.uploading_path} says round {run.uploading}, but {charged} rounds were charged; "
                "put it back as it was"
            )
        server = Server.of(self._recipe, run.federation)
        if done:
            server.load(run.checkpoint_path)
        return server
