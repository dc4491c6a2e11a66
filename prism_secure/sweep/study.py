"""A sweep's points in Optuna's storage: SQLite for one machine, PostgreSQL for many.

A trial is a point, with all its seeds. All points of a sweep wait in the study from the start; whoever sweeps
takes the next. Optuna's samplers choose the values of `random`, `tpe` and `nsga2`; a search's trials wait
without values and get them when they are taken.

A trial that was taken and never told is dead: on this machine when its sweep no longer holds the folder's
lock, on another one when its heartbeat stops. Then Optuna fails it and puts a copy in the queue. Whatever
happened in between, `refill` puts back what is missing, and `claim` passes over what is there twice, so each
point is run to its end once.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from prism_secure.errors import ConfigError, MissingPackage, StorageError, pip_install, public_text
from prism_secure.sweep.objectives import direction
from prism_secure.sweep.recipe import Settings, SweepRecipe, point_id

if TYPE_CHECKING:
    import optuna
    from optuna import Trial

__all__ = ["Claim", "PointStudy", "hidden", "import_optuna", "open_storage", "random_points"]

BEAT = 20
"""Seconds between heartbeats."""
GRACE = 90
"""Seconds without a heartbeat after which a trial of another machine is dead."""
_ATTEMPTS = 5
_CREATION = 30.0
"""Seconds that other machines give the first one to fill a new study."""

QUEUED, OWNER, POINT, FAILED, COPY, FILLED = "queued", "owner", "point", "failed", "copy_of", "filled"
AGAIN = "again"
"""The finished trial, its runs lost, that a trial stands for."""


@dataclass(frozen=True)
class Claim:
    """A point that this sweep has taken."""

    number: int
    settings: Settings
    refused: str = ""
    """Why it cannot be run: a search may propose settings that do not go together."""


class PointStudy:
    """The study of one recipe in one storage.

    Args:
        recipe: its objectives are the study's; its hash is part of the name.
        name: the study's, equal on all machines.
        url: see `open_storage`.
        owner: names this machine and folder; no two sweeps that go on at once have the same.

    Raises:
        ConfigError: Optuna, or the driver for this storage, is not installed.
        StorageError: the storage cannot be reached.
    """

    def __init__(self, recipe: SweepRecipe, name: str, url: str, owner: str) -> None:
        optuna = import_optuna()
        self._recipe, self._owner = recipe, owner
        self._local = url.startswith("sqlite")
        self._distributions = {key: axis.distribution() for key, axis in recipe.axes.items()}
        self._points = fixed_points(recipe)
        self._taken: dict[int, Trial] = {}
        self._ownerless: dict[int, float] = {}
        self._storage = open_storage(url)
        sampler = _sampler(optuna, recipe)
        directions = [direction(objective) for objective in recipe.objectives]
        try:
            self._study = optuna.create_study(
                storage=self._storage, sampler=sampler, study_name=name, directions=directions
            )
            self._study.set_metric_names(list(recipe.objectives))
        except optuna.exceptions.DuplicatedStudyError:
            self._study = optuna.load_study(storage=self._storage, sampler=sampler, study_name=name)
            self._wait_for_creator()

    def recover(self, is_there: Callable[[Settings], bool]) -> list[Settings]:
        """Put back what an earlier sweep of this owner had taken, and try again what had failed.

        Args:
            is_there: whether the folder has the results of a point that this owner has finished.

        Returns:
            The points that it has not: they are put back, too.
        """
        self._requeue(trial for trial in self._trials("RUNNING") if self._is_mine(trial))
        lost = []
        for trial in self._trials("COMPLETE"):
            settings = self._settings(trial)
            if self._is_mine(trial) and not is_there(settings):
                lost.append(settings)
                requeue(self._study, trial)
        self._refill(retry_failed=True)
        self._study.set_user_attr(FILLED, True)
        return lost

    def close(self) -> None:
        """Let go of the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def reap(self) -> None:
        """Put back what sweeps of other machines had taken that no longer give a sign of life."""
        if self._local:
            return
        optuna = import_optuna()
        optuna.storages.fail_stale_trials(self._study)
        # Killed between taking a trial and its first heartbeat: Optuna never fails these.
        seen = {trial.number: trial for trial in self._trials("RUNNING") if OWNER not in trial.user_attrs}
        self._ownerless = {n: self._ownerless.get(n, time.monotonic()) for n in seen}
        self._requeue(seen[n] for n, since in self._ownerless.items() if time.monotonic() - since > GRACE)
        self._refill(retry_failed=False)

    def claim(self) -> Claim | None:
        """Take the next point; None if none waits."""
        while self._trials("WAITING"):
            trial = self._study.ask(self._distributions)
            if QUEUED not in trial.user_attrs:  # another machine took the last one just now
                self._drop(trial.number)
                return None
            self._taken[trial.number] = trial
            trial.set_user_attr(OWNER, self._owner)
            self.beat([trial.number])
            chosen = self._decoded(trial)
            try:
                settings = self._recipe.normal(chosen)
                for seed in self._recipe.seeds:
                    self._recipe.config(settings, seed)
            except ConfigError as error:
                return Claim(trial.number, chosen, public_text(error))
            trial.set_user_attr(POINT, point_id(settings))
            original = self._original(trial.number, point_id(settings))
            if original is None:
                return Claim(trial.number, settings)
            trial.set_user_attr(COPY, original)
            self._drop(trial.number)
            if self._recipe.adaptive:  # another proposal instead, unless they only repeat themselves
                self._refill(retry_failed=False)
        return None

    def finish(self, claim: Claim, values: Sequence[float]) -> None:
        """A point has its results, one for each objective; a trial that was taken for dead stays so."""
        self._study.tell(claim.number, list(values), skip_if_finished=True)

    def fail(self, claim: Claim, reason: str) -> None:
        """A point failed for good, until the sweep is started again."""
        with contextlib.suppress(import_optuna().exceptions.UpdateFinishedTrialError):
            self._taken[claim.number].set_user_attr(FAILED, reason)
            self._drop(claim.number)

    def release(self, numbers: Collection[int]) -> None:
        """Put back what this sweep had taken and will not finish now."""
        self._requeue(trial for trial in self._trials("RUNNING") if trial.number in numbers)

    def beat(self, numbers: Iterable[int]) -> None:
        """Show that these trials are alive."""
        if not self._local:
            for number in numbers:
                self._storage.record_heartbeat(self._taken[number]._trial_id)

    def waiting(self) -> int:
        """How many points wait."""
        return len(self._trials("WAITING"))

    def elsewhere(self) -> int:
        """How many points other machines have taken."""
        return sum(not self._is_mine(trial) for trial in self._trials("RUNNING"))

    def finished(self) -> int:
        """How many points have results, on any machine."""
        return len(self._trials("COMPLETE"))

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        """Those in one of these states, without finished ones that another stands for since."""
        trials = self._study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(AGAIN) for trial in trials}
        return [trial for trial in trials if trial.state.name in states and trial.number not in again]

    def _decoded(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> Settings:
        return {key: axis.decoded(trial.params[key]) for key, axis in self._recipe.axes.items()}

    def _settings(self, trial: optuna.trial.FrozenTrial) -> Settings:
        """Of a trial that was run."""
        return self._recipe.normal(self._decoded(trial))

    def _is_mine(self, trial: optuna.trial.FrozenTrial) -> bool:
        return self._local or trial.user_attrs.get(OWNER) == self._owner

    def _original(self, number: int, point: str) -> int | None:
        """The trial that stands for this point, if it is not this one: finished, or queued before it."""
        for trial in self._trials("COMPLETE", "RUNNING", "WAITING"):
            same = trial.number != number and trial.user_attrs.get(POINT) == point
            if same and (trial.state.name == "COMPLETE" or trial.number < number):
                return trial.number
        return None

    def _drop(self, number: int) -> None:
        self._study.tell(number, state=import_optuna().trial.TrialState.FAIL, skip_if_finished=True)

    def _requeue(self, trials: Iterable[optuna.trial.FrozenTrial]) -> None:
        for trial in list(trials):
            self._drop(trial.number)
            requeue(self._study, trial)

    def _refill(self, *, retry_failed: bool) -> None:
        """Queue every point that is neither waiting, taken nor finished."""
        alive = {trial.user_attrs.get(POINT) for trial in self._trials("WAITING", "RUNNING", "COMPLETE")}
        ended = [trial for trial in self._trials("FAIL") if POINT in trial.user_attrs]
        failed = {trial.user_attrs[POINT] for trial in ended if FAILED in trial.user_attrs}
        given_up = set() if retry_failed else failed
        for trial in ended:
            if trial.user_attrs[POINT] not in alive | given_up:
                requeue(self._study, trial)
                alive.add(trial.user_attrs[POINT])
        for point, settings in self._points.items():
            if point not in alive | given_up:
                params = {key: self._recipe.axes[key].encoded(settings[key]) for key in settings}
                self._study.enqueue_trial(params, user_attrs={QUEUED: True, POINT: point})
        if self._recipe.adaptive:
            wanted = self._recipe.sweep.points or 0
            refused = [
                t for t in self._trials("FAIL") if FAILED in t.user_attrs and POINT not in t.user_attrs
            ]
            used = len(self._trials("WAITING", "RUNNING", "COMPLETE")) + len(failed - alive) + len(refused)
            copies = sum(COPY in trial.user_attrs for trial in ended)
            for _ in range(min(wanted - used, 2 * wanted - copies)):
                self._study.enqueue_trial({}, user_attrs={QUEUED: True})

    def _wait_for_creator(self) -> None:
        """Let the machine that made the study fill it: two that fill it at once queue everything twice."""
        end = time.monotonic() + (0 if self._local else _CREATION)
        while FILLED not in self._study.user_attrs and time.monotonic() < end:
            time.sleep(0.2)


def requeue(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Put a copy of a trial into the queue, without its owner; it stands for a finished one from then on."""
    kept = {key: trial.user_attrs[key] for key in (QUEUED, POINT, AGAIN) if key in trial.user_attrs}
    if trial.state.name == "COMPLETE":
        kept[AGAIN] = trial.number
    study.enqueue_trial(trial.params, user_attrs=kept)


def fixed_points(recipe: SweepRecipe) -> dict[str, Settings]:
    """All points of a grid, or of random points, by id; none of a search, which makes them on the way.

    Raises:
        ConfigError: there are fewer different random points than `sweep.points`.
    """
    points = random_points(recipe) if recipe.sweep.method == "random" else recipe.grid()
    return {point_id(settings): settings for settings in points}


def random_points(recipe: SweepRecipe) -> list[Settings]:
    """The points of `method = "random"`: the same ones for the same recipe, all different, all possible.

    Raises:
        ConfigError: there are fewer than `sweep.points`.
    """
    optuna = import_optuna()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=recipe.base.federation.seed))
    distributions = {key: axis.distribution() for key, axis in recipe.axes.items()}
    wanted = recipe.sweep.points or 0
    found: dict[str, Settings] = {}
    for _ in range(100 * wanted):
        if len(found) == wanted:
            break
        params = study.ask(distributions).params
        try:
            settings = recipe.normal({key: axis.decoded(params[key]) for key, axis in recipe.axes.items()})
            found.setdefault(point_id(settings), settings)
        except ConfigError as error:
            refused = error
    if not found:
        raise refused
    if len(found) < wanted:
        raise ConfigError(f"sweep.points = {wanted}, but only {len(found)} different points were found")
    return list(found.values())


def import_optuna() -> Any:
    """Optuna, kept quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingPackage(f"a sweep needs Optuna: {pip_install('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Heartbeats are an experiment of Optuna's, meant for its own loop; here `beat` sends them.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed", UserWarning)
    return optuna


def hidden(url: str) -> str:
    """A storage's URL without its password, wherever that stands, for people and files.

    >>> hidden("postgresql://me:secret@db.example/sweeps")
    'postgresql://me:***@db.example/sweeps'
    >>> hidden("postgresql://db.example:5432/sweeps?user=me&password=p@ss")
    'postgresql://db.example:5432/sweeps?***'
    """
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    base, query, after = rest.partition("?")
    login, at, host = base.rpartition("@")
    user, colon, secret = (login if at else base).partition(":")
    # A password may have a "?" in it: what is before that looks like a host's port, and is none.
    cut = "@" in after and re.match(r"\d*(/|$)", secret) is None
    shown = f"{user}:***{at}{host if at else ''}" if colon and (at or cut) else base
    return f"{scheme}{slashes}{shown}{query}{'***' if query else ''}"


@contextlib.contextmanager
def as_storage_error(url: str) -> Iterator[None]:
    """Whatever a storage that was open refuses becomes a `StorageError` that names it."""
    optuna = import_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise StorageError(f"{hidden(url)}: {_reason(error)}; the same command continues") from None


def _reason(error: BaseException) -> str:
    """The database's own words, one line of them."""
    below = error.__cause__ if type(error).__name__ == "StorageInternalError" else error
    return str(getattr(below, "orig", None) or below).strip().splitlines()[0]


def open_storage(url: str) -> Any:
    """Optuna's storage at a URL.

    Args:
        url: `postgresql://...`, or `sqlite:///` and a path whose `%`, `?` and `#` are percent-encoded.

    Raises:
        ConfigError: of another kind, no address at all, or its driver is not installed.
        StorageError: it cannot be reached.
    """
    optuna = import_optuna()
    from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
    from sqlalchemy.pool import NullPool, QueuePool

    if url.startswith("postgresql://"):
        if "@" in url.partition("@")[2] + url.partition("?")[2]:  # the driver would quote what follows it
            raise ConfigError(f"in a password write %40 for @ and %3F for ?, got {hidden(url)!r}")
        try:
            import psycopg  # noqa: F401 - the driver that the address below names
        except ImportError:
            raise MissingPackage(f"PostgreSQL needs a driver: {pip_install('postgresql')}") from None
    elif not url.startswith("sqlite:///"):
        raise ConfigError(f"--storage takes postgresql://USER@HOST/DATABASE, got {hidden(url)!r}")
    elif "?" in url or "#" in url:
        raise ConfigError(f"in a path write %3F for ? and %23 for #, got {url!r}")
    local = url.startswith("sqlite")
    if local:
        path = Path(unquote(url.removeprefix("sqlite:///"))).absolute()  # SQLite reads "file:x" as a URL

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(path, timeout=60, check_same_thread=False)

        # The path goes past SQLAlchemy, whose versions unescape URLs differently.
        target, engine = "sqlite://", {"creator": connect, "poolclass": QueuePool}
    else:
        target, engine = url.replace("postgresql://", "postgresql+psycopg://", 1), {"poolclass": NullPool}
    made_by = optuna.storages.RDBStorage
    lost = "heartbeat_stale_trial_callback"
    if lost not in inspect.signature(made_by).parameters:
        lost = "failed_trial_callback"  # Optuna 4's name for it
    beating = {"heartbeat_interval": BEAT, "grace_period": GRACE, lost: requeue}
    # Optuna takes braces for a template.
    storage = partial(made_by, target.replace("{", "{{").replace("}", "}}"))
    for attempt in range(_ATTEMPTS):
        try:
            first = storage(engine_kwargs=engine)
            if local:
                return first
            first.remove_session()
            # Its tables are there. Connections are kept from here on; one that died overnight is made anew.
            kept = {"engine_kwargs": {"pool_pre_ping": True}, "skip_table_creation": True}
            return storage(**kept, **beating)
        except (ArgumentError, TypeError, ValueError):  # its text may quote a part of a password
            raise ConfigError(f"--storage: {hidden(url)!r} is not the address of a database") from None
        except SQLAlchemyError as error:
            # Two machines that make a new database's tables at once: one of them has to look again.
            if isinstance(error, OperationalError) or attempt == _ATTEMPTS - 1:
                raise StorageError(f"cannot open {hidden(url)}: {_reason(error)}") from None
            time.sleep(0.5)
    raise AssertionError


def _sampler(optuna: Any, recipe: SweepRecipe) -> Any:
    points = recipe.sweep.points or 1
    if recipe.sweep.method == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=min(10, max(2, points // 4)), constant_liar=True)
    if recipe.sweep.method == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=min(50, max(4, points // 4)))
    return optuna.samplers.RandomSampler()
