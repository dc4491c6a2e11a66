"""The round loop in one process group: broadcast, train, randomize, sum, move theta, account, measure.

Each round writes in an order that a kill cannot spoil. The ledger is charged before the first upload can
leave; uploads are on disk, and that they may leave, before they are summed; the checkpoint replaces its
predecessor last. A round's metrics complete its record before the next one's is written: with more workers
than one they are computed while that round goes on. A round that was cut short is repeated from the uploads
that are already there, with the same counts, and is charged once. From the mark on nobody draws other bits
for it: who has lost theirs stops the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from prism_crypto import FixedPoint, SecureSumError, SecureSumResult, SessionContext, Stage, secure_sum
from prism_privacy import PrivacyError
from prism_secure.accounting.spending import Spending
from prism_secure.config import Config
from prism_secure.config.invitations import dropped_out, invited
from prism_secure.data.fingerprint import keep_fingerprint
from prism_secure.data.skipped import keep_skipped
from prism_secure.errors import ConfigError, PrismError, RoundError, RunFolderError, StorageError, public_text
from prism_secure.model.model_card import model_words
from prism_secure.model.model_file import write_model
from prism_secure.reporting.progress import Listener, Silent
from prism_secure.reporting.report import write_report
from prism_secure.rounds.assembly import Clock, close_round, evaluated_if_due, with_metrics
from prism_secure.rounds.broadcast import Broadcast
from prism_secure.rounds.client import Client
from prism_secure.rounds.components import Components
from prism_secure.rounds.moment_sum import moments_are_open, open_moments
from prism_secure.rounds.rehearsal import check_components
from prism_secure.rounds.server import Server
from prism_secure.rounds.threads import wait_together
from prism_secure.rounds.workers import Workers
from prism_secure.run_folder.environment import keep_environment
from prism_secure.run_folder.folder import RunFolder, checkpoint_round, client_folder, is_done, read_records
from prism_secure.run_folder.history import RunHistory, check_whole
from prism_secure.run_folder.records import Quality, RoundRecord
from prism_secure.run_folder.run import Run

Bits = Callable[[], NDArray[np.integer]]

SIGN_OF_LIFE = 10.0
"""Seconds after which a listener is told that work before round 1 goes on."""
Stop = Callable[[Sequence[RoundRecord]], str | None]
"""Asked before every round with the finished ones: a reason to end the run here, or None. Whoever decides by
public metrics keeps the planned epsilon; no epsilon covers decisions by private ones."""


def run(
    config: Config,
    out: str | os.PathLike[str],
    *,
    command: str = "python",
    listener: Listener | None = None,
    stop: Stop | None = None,
) -> Run:
    """Train in the run folder `out`, new or to be continued, and return it; as a path it is its report.

    Args:
        config: what to do; a folder that was started with another configuration is refused.
        command: the command line that the report shows; a call from Python is just "python".
        listener: told of every step; see `prism_secure.reporting.progress`.
        stop: may end the run before its last planned round; see `Stop`.

    Raises:
        PrismError: see `prism_secure.errors`; what was finished is kept and the same call continues.
    """
    if not isinstance(config, Config):
        raise ConfigError(
            f"run takes a Config, which load_config reads from a file or a recipe, got {config!r}"
        )
    listener, out = listener or Silent(), Path(out)
    components = Components(config)
    if not is_done(out):
        listener.note("checking the recipe: its data, its weights, its epsilons, and a round in small")
        check_components(components)
    with RunFolder(out, config) as folder:
        history = check_whole(out)
        if folder.done:
            listener.note(f"{out} is finished already")
            write_report(out)
            return Run.open(out)
        clients = [
            Client(index, client_folder(out, index), components) for index in range(config.federation.clients)
        ]
        opened = _last_opened(folder, history)
        for client in clients:
            client.check(folder.federation, checkpoint_round(out), len(history.rounds), opened=opened)
        folder.start()
        try:
            _train(components, folder, clients, command, listener, stop)
        except (PrismError, PrivacyError, SecureSumError, OSError) as error:
            with contextlib.suppress(PrismError, OSError):  # the reason matters more than its page
                if not folder.withdraw():
                    folder.fail(public_text(error))
                    write_report(out)
            if isinstance(error, OSError):
                public = f"the disk refused: {public_text(error)}"
                text = f"the disk refused: {error}; the same command continues"
                raise StorageError(text, public=public) from error
            if not isinstance(error, PrismError):
                raise RoundError(str(error)) from error
            raise
        write_report(out)
    return Run.open(out)


def _last_opened(folder: RunFolder, history: RunHistory) -> int:
    """The last round whose sum may be known, by a mark that has to be there from the first charge on.

    Raises:
        RunFolderError: it is gone, or of another state.
    """
    opened, charged = folder.uploading, len(history.rounds)
    low = opened < max(len(history.records), charged - 1)
    high = history.ledger is not None and opened > charged  # without a ledger the clients say what is gone
    if low or high or (charged and not folder.uploading_path.exists()):
        raise RunFolderError(
            f"{folder.uploading_path} {f'says round {opened}' if opened else 'is gone'}, but {charged} "
            f"rounds were charged and {len(history.records)} finished; put it back as it was"
        )
    return opened


def _train(
    components: Components,
    folder: RunFolder,
    clients: Sequence[Client],
    command: str,
    listener: Listener,
    stop: Stop | None,
) -> None:
    """Everything from the checkpoint on. The steps are in the only order that no kill can spoil."""
    config = components.config
    private, begun = folder.path / "clients", folder.ledger_path.exists()
    # 1. What the run is of: its data, its environment. A continued run must find the same data.
    keep_fingerprint(private, config.data, components.dataset, listener.note, begun=begun)
    keep_environment(folder.path, command, components.facts, listener.note, begun=begun)
    keep_skipped(private, components.dataset.skipped, listener.note)
    # 2. The server as the last finished round left it.
    server = Server.of(components, folder.federation)
    if folder.checkpoint_path.exists():
        server.load(folder.checkpoint_path)
    release = components.record_release
    # 3. The ledger is opened before anything may leave a client.
    spending = Spending(
        config,
        folder,
        components.trainer.dimension,
        server.round,
        release,
        sizes=components.public_sizes,
        persons=components.partition.persons,
    )
    with spending, Workers(components, folder.path) as workers:
        rounds = spending.planned_rounds
        # 4. Uploads that a kill left behind after their round was in the checkpoint.
        _forget_uploads(server.round, rounds, clients, config, folder)
        # 5. Before round 1: charge what will be released of the images, read them, open the sum of shares.
        moments = [client.moments for client in clients]
        if release is not None and not release.summed and spending.charged_rounds and server.round == 0:
            for each in moments:  # uploads that follow from these releases may have left
                each.require()
        reading = server.round == 0 and (
            release is None
            or not moments_are_open(release, moments, folder.path, charged=bool(spending.moments_charged))
        )
        for note in components.notes:  # before any image is read: they say what that is worth
            listener.note(note)
        if reading:
            images = f"{components.facts.training_images:,} images of {len(clients):,} clients"
            listener.note(f"measuring features of {images}, once; then round 1")
        listener.started(rounds, server.round, config.invited + 1)
        if server.round == 0:
            summed = release is not None and release.summed
            if not summed:
                spending.charge_moments()
            if reading:
                _tell(workers.prepare(folder.federation), len(clients), listener)
            if release is not None and summed:
                # Shares stay with their clients till here, so a charge without them says that they are lost.
                spending.charge_moments()
                listener.note("opening the one noisy sum of their moments")
                open_moments(release, moments, folder.path, folder.federation)
        # 6. The last round's metrics, where a run ended between its checkpoint and them.
        metrics = _Metrics(folder, listener)
        measure = partial(evaluated_if_due, server, rounds, workers.evaluate, folder.sample_path)
        if server.round and server.is_evaluated(rounds):
            record = read_records(folder.path)[server.round - 1]
            if record.quality is None:
                metrics.begin(record, measure())
                metrics.wait()
        ended = spending.ended or ""
        while spending.ended is None and server.round < rounds:
            if stop or not workers.beside:
                metrics.wait()
            # A kill between record and checkpoint leaves the record of a round that is still to be repeated.
            if stop and (ended := stop(read_records(folder.path)[: server.round]) or ""):
                break
            # 7. Charge, let clients answer, open the sum, move theta: see `_round`.
            record = _round(server, clients, components, folder, workers, spending, listener)
            # 8. The metrics of the round before, which were computed meanwhile.
            metrics.wait()
            # 9. The record first: repeating its round replaces it. With the checkpoint the round is over.
            folder.keep(record)
            server.save(folder.checkpoint_path)
            # 10. Only now can the uploads go: until the checkpoint is there they may be summed again.
            _forget_uploads(server.round, rounds, clients, config, folder)
            metrics.begin(record, measure())
        metrics.wait()
        _forget_uploads(server.round, server.round, clients, config, folder)
        # 11. The model, then the ledger's last line, which signs it.
        model = (components.architecture, components.model_seed, server.deployed())
        write_model(folder.model_path, *model)
        spending.end(model_words(*model), ended)
    budget = f", as far as {config.limits} goes" if config.limits else ""
    # 12. DONE.
    folder.finish(f"{server.round} of {config.federation.rounds} rounds{budget}{ended and f': {ended}'}")


class _Metrics:
    """The metrics of the last finished round, which may be computed while the next one goes on.

    Args:
        folder: already keeps the round's record without them; then with them.
        listener: told of the round once they are kept.
    """

    def __init__(self, folder: RunFolder, listener: Listener) -> None:
        self._folder, self._listener = folder, listener
        self._begun: tuple[RoundRecord, Callable[[], Quality]] | None = None

    def begin(self, record: RoundRecord, quality: Callable[[], Quality] | None) -> None:
        """`quality` waits for the metrics of `record`; None where none are due."""
        if quality is None:
            self._listener.round_finished(record)
        else:
            self._begun = record, quality

    def wait(self) -> None:
        """Complete the record whose metrics were begun, if any were.

        Raises:
            PrismError: the evaluation failed; the round is named.
        """
        if self._begun is not None:
            record, self._begun = with_metrics(*self._begun), None
            self._folder.keep(record)
            self._listener.round_finished(record)


def _tell(done: Iterable[int], clients: int, listener: Listener, *, every: float = SIGN_OF_LIFE) -> None:
    """Wait for all clients, and say every so many seconds how many are ready."""
    said = time.perf_counter()
    for count, _ in enumerate(done, 1):
        if count < clients and time.perf_counter() - said >= every:
            said = time.perf_counter()
            listener.note(f"features measured of {count:,} of {clients:,} clients")


def _round(
    server: Server,
    clients: Sequence[Client],
    components: Components,
    folder: RunFolder,
    workers: Workers,
    spending: Spending,
    listener: Listener,
) -> RoundRecord:
    began, config = time.perf_counter(), components.config
    broadcast = server.broadcast()
    # a. Charge before an upload can leave; once, however often the round is repeated. The mark of step c is
    # there before the first charge, so that it is missed where it is gone.
    if not folder.uploading_path.exists():
        folder.mark_uploading(0)
    spending.charge(broadcast.round)
    # b. Clients answer; their uploads are on disk when this ends.
    taking_part = invited(config, broadcast.round)
    for _ in workers.answer(broadcast, taking_part):
        listener.worked()
    # c. Say on disk that uploads may leave, then open the sum of what is there.
    folder.mark_uploading(broadcast.round)
    uploading = time.perf_counter()
    sums = _open_round(components, broadcast, [clients[index] for index in taking_part])
    clock = Clock(time.perf_counter, began, uploading, opened=time.perf_counter())
    # d. Nothing of a client from here on.
    record = close_round(
        components,
        server,
        broadcast,
        sums,
        moments=clients[0].moments.targets() if config.training.end_steps else None,
        spending=spending,
        clock=clock,
    )
    listener.worked()
    return record


def _forget_uploads(
    finished: int, rounds: int, clients: Sequence[Client], config: Config, folder: RunFolder
) -> None:
    """Delete the bits of the last finished round; who is in the next one does so itself when it answers."""
    if finished:
        busy = set(invited(config, finished + 1)) if finished < rounds else set()
        over = [clients[index] for index in sorted(set(invited(config, finished)) - busy)]
        wait_together(lambda client: client.forget_upload(folder.federation, finished), over)


def _open_round(
    components: Components, broadcast: Broadcast, clients: Sequence[Client]
) -> list[SecureSumResult]:
    """The sum of the clients' bits and, where the last layers send scores, of those."""
    config, layers = components.config, components.score_layers
    sums = [open_securely(config, broadcast, [partial(client.bits, broadcast) for client in clients])]
    if layers is not None:
        inputs = [partial(client.scores, broadcast) for client in clients]
        sums.append(open_securely(config, broadcast, inputs, codec=layers.codec))
    return sums


def open_securely(
    config: Config, broadcast: Broadcast, bits: Sequence[Bits], *, codec: FixedPoint | None = None
) -> SecureSumResult:
    """Open the sum of the clients' bits through `prism_crypto`: the server's part sees masked words only.

    Each client's bits are read when its turn to upload comes, inside its own part of the protocol. With a
    `codec` they are its integers instead, in a second session of the round. With `secure_sum.simulate` no
    session is run: they are added up in the clear, and messages have the sizes that they would have had.
    With `secure_sum.dropouts` some clients share keys and send nothing after; each try loses the same ones.
    """
    there, gone = invited(config, broadcast.round), set(dropped_out(config, broadcast.round))
    # Numbers only increase. The first is for the moments, where they are summed.
    number = broadcast.round + 1
    if config.mask.score_layers:
        number = 2 * broadcast.round + (codec is not None)
    return secure_sum(
        bits,
        bound=1 if codec is None else codec.levels,
        drop={place: Stage.UPLOAD for place, client in enumerate(there) if client in gone},
        codec="integers" if codec is None else f"fixed point {codec.clip:g}/{codec.levels}",
        mode=config.secure_sum.mode,
        threshold=None if config.sparse else config.threshold,  # a sparse graph has one of its own
        min_survivors=config.min_survivors,
        colluders=config.privacy.colluders,
        graph=config.graph,
        suite=config.secure_sum.suite,
        simulate=config.secure_sum.simulate,
        context=SessionContext(
            federation=broadcast.federation,
            number=number,
            round=broadcast.round,
            model_hash=broadcast.digest,
            binding=msgspec.json.encode(
                {
                    "mask": config.mask,
                    "privacy": config.privacy,
                    # A digest: a session binds 4,096 bytes.
                    "invited": hashlib.sha256(msgspec.json.encode(there)).hexdigest(),
                }
            ),
        ),
    )
