"""Measured rounds: the server asks in few public directions, and clients answer in few noisy bits.

    client  once: the features of its images, as integers. Each round: k numbers, exact sums over its images,
            clipped; they move m bits, whose coins and upload are as real as a mask's
    server  adds what opened to a posterior of the clients' moments, with its known noise, and trains on that
            mean: theta follows from opened sums and public numbers alone

The exact mechanism is `prism_privacy.measured`; how far bits move comes from the plan that the ledger charges
(`prism_secure.accounting.measured`), which every party makes by itself. How long an answer of a client may
be, A, is the server's word: bits move by (C/A) times an answer that is cut at A, and an image's is cut at a
fixed share of A, so whatever A is, neither moves them further than was charged. The server takes it from the
public model and from what opened (`answer_clips`). The bits move around 1/2, where they have the most room,
so theta is nothing that a client needs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from prism_privacy import (
    HadamardEmbedding,
    InvalidParameter,
    MeasuredRelease,
    MeasuredRound,
    RowDirections,
    measured_mean,
    quantise_features,
)
from prism_secure.accounting.measured import concentration, people
from prism_secure.config.public_seed import public_seed
from prism_secure.errors import AgreementError, ConfigError, RunFolderError
from prism_secure.learning.aggregation import Step
from prism_secure.learning.measured.directions import AskedRows, principal_directions
from prism_secure.learning.measured.prior import Prior
from prism_secure.learning.measured.row_posterior import RowPosterior
from prism_secure.learning.measured.rows import SPECTRUM, Expected, best_rows, expected_rounds
from prism_secure.learning.measured.schedule import answer_clips, steps_after
from prism_secure.learning.measured.server_training import Metric, ServerState, ServerTraining
from prism_secure.learning.moment_matching import FeatureMoments
from prism_secure.rounds.arrays import read_arrays
from prism_secure.rounds.behaviours.behaviour import Behaviour, ClientSide, MeasuredAnswer, Opened
from prism_secure.rounds.broadcast import Arrays, Broadcast
from prism_secure.rounds.components import Components
from prism_secure.rounds.moments import ClientMoments
from prism_secure.rounds.threads import one_thread
from prism_secure.storage import make_private_folder, write_atomic

Array = NDArray[np.float64]

IMAGES_AT_ONCE = 5000
"""About how many images' answers are computed at once."""
LENGTHS = (2.0**-20, 2.0**20)
"""The range of A, in units of features."""
HALF = 1 << 23
"""p_t = 1/2 in units of 2^-24."""


class Measure(Behaviour):
    """See the module.

    Raises:
        ConfigError: the server cannot train such masks.
    """

    def __init__(self, components: Components) -> None:
        config = components.config
        if config.mask.mode != "hard":
            raise ConfigError(
                f"federation.behaviour = 'measure' needs mask.mode = 'hard', got {config.mask.mode!r}"
            )
        self.components = components
        self._last: tuple[bytes, MeasuredRound] | None = None
        self._answers: dict[tuple[bytes, MeasuringClient], tuple[NDArray[np.int64], NDArray[np.uint32]]] = {}

    def client(self, index: int, folder: Path, moments: ClientMoments) -> MeasuringClient:
        return MeasuringClient(self, index, folder)

    def server(self) -> MeasuringServer:
        return MeasuringServer(self)

    def check(self, broadcast: Broadcast) -> None:
        self.checked_round(broadcast)

    def together(self, broadcast: Broadcast, clients: Sequence[ClientSide]) -> None:
        """A few matrix products for many clients: exact integers, so the same whoever is in it."""
        asked, self._answers = self.checked_round(broadcast), {}
        waiting: list[MeasuringClient] = []
        held: list[Records] = []

        def flush() -> None:
            if not held:
                return
            features = np.concatenate([each.features for each in held])
            labels = np.concatenate([each.labels for each in held])
            told = [each.persons for each in held if each.persons is not None]
            owners = np.repeat(np.arange(len(held)), [len(each.labels) for each in held])
            persons = np.concatenate(told) if told else None
            answers = asked.answers(features, labels, owners, len(held), persons)
            found = zip(waiting, answers, asked.probabilities(answers), strict=True)
            self._answers |= {(broadcast.digest, client): (answer, p) for client, answer, p in found}
            waiting.clear()
            held.clear()

        for client in clients:
            assert isinstance(client, MeasuringClient)
            waiting.append(client)
            held.append(client.records())
            if sum(len(each.labels) for each in held) >= IMAGES_AT_ONCE:
                flush()
        flush()

    def answers_of(self, client: MeasuringClient, broadcast: Broadcast) -> NDArray[np.int64]:
        """What one client answers, int64 (k,)."""
        asked = self.checked_round(broadcast)  # all that is public is checked before data are read
        known = self._answers.get((broadcast.digest, client))
        if known is not None:
            return known[0]
        own = client.records()
        found: NDArray[np.int64] = asked.answers(own.features, own.labels, persons=own.persons)[0]
        return found

    def probabilities(
        self, client: MeasuringClient, answers: NDArray[np.int64], broadcast: Broadcast
    ) -> NDArray[np.uint32]:
        """What a client's bits are drawn with for its answers (k,), uint32 (m,), units of 2^-24."""
        known = self._answers.pop((broadcast.digest, client), None)
        if known is not None and np.array_equal(known[0], answers):
            return known[1]
        found: NDArray[np.uint32] = self.checked_round(broadcast).probabilities(answers[None])[0]
        return found

    def planned(self, round_number: int) -> MeasuredRelease:
        """What a round releases by this party's own plan."""
        return self.components.plan.measured[round_number - 1]

    def checked_round(self, broadcast: Broadcast) -> MeasuredRound:
        """A round as this party understands it: its own plan, and what the broadcast asks. Reads no data.

        Raises:
            AgreementError: the broadcast is not one of this plan's rounds.
        """
        digest = broadcast.digest
        if self._last is None or self._last[0] != digest:
            self._last = digest, self._check_round(broadcast)
        return self._last[1]

    def _check_round(self, broadcast: Broadcast) -> MeasuredRound:
        rounds = self.components.plan.rounds
        if not 1 <= broadcast.round <= rounds:
            raise AgreementError(f"there are {rounds} measured rounds, asked for {broadcast.round}")
        dimension = self.components.trainer.dimension
        if len(broadcast.theta) != dimension:
            raise AgreementError(f"theta has {dimension} numbers, got {len(broadcast.theta)}")
        public: dict[str, NDArray[Any]] = dict(broadcast.public)
        wanted = self._wanted(public)
        found = {name: (array.dtype.type, array.shape) for name, array in public.items()}
        if found != wanted:
            raise AgreementError(f"a measured round sends {wanted}, got {found}")
        release = self._agreed(broadcast.round, public["terms"])
        try:
            return MeasuredRound(
                release,
                RowDirections.of(
                    public["basis"] * float(public["unit"][0]),
                    public["rows"],
                    public["by_class"],
                    public["reference"],
                ),
                HadamardEmbedding(
                    public["embedding"].tobytes(),
                    dimension=len(broadcast.theta),
                    size=release.coordinates,
                    directions=release.directions,
                ),
                np.full(release.coordinates, HALF, np.int64),
                broadcast.federation,
                broadcast.round,
            )
        except InvalidParameter as error:
            raise AgreementError(
                f"round {broadcast.round} asks for what no client answers: {error}"
            ) from None

    def _wanted(self, public: dict[str, NDArray[Any]]) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """What a broadcast holds: types and shapes. A basis may have fewer rows than are set."""
        config = self.components.config.measured
        classes, features = self.components.architecture.classes or 1, self.components.extractor.dimension
        basis = public.get("basis")
        most = config.rows or SPECTRUM
        rows = min(most, len(basis)) if basis is not None and basis.ndim == 2 else most
        return {
            "basis": (np.int16, (max(1, rows), features)),
            "unit": (np.float64, (1,)),
            "rows": (np.uint16, (config.directions,)),
            "by_class": (np.float32, (classes, config.directions)),
            "reference": (np.float32, (classes, features)),
            "embedding": (np.uint8, (32,)),
            "terms": (np.float64, (7,)),
        }

    def _agreed(self, number: int, told: NDArray[Any]) -> MeasuredRelease:
        """The planned release of a round, in units of features: A is the server's to say, and only A."""
        planned, length = self.planned(number), float(told[2])
        if not LENGTHS[0] <= length <= LENGTHS[1]:
            raise AgreementError(f"A must lie between {LENGTHS[0]:g} and {LENGTHS[1]:g}, got {length}")
        release = in_features(planned, length)
        if not np.array_equal(told, terms(release)):
            raise AgreementError(
                f"round {number} was planned with {terms(release).tolist()}, asked for with {told.tolist()}: "
                "f, C, A, c, N, m and k"
            )
        return release


def in_features(planned: MeasuredRelease, length: float) -> MeasuredRelease:
    """A planned release, whose unit is A, where A is so long. Its radii are the planned ones."""
    return replace(planned, client_clip=length, record_clip=length * planned.record_clip)


def terms(release: MeasuredRelease) -> Array:
    """f, C, A, c, N, m and k, float64 (7,): all that a client's bits depend on beside what is asked."""
    return np.array(
        [
            release.flip,
            release.clip,
            release.client_clip,
            release.record_clip,
            release.records,
            release.coordinates,
            release.directions,
        ],
        dtype=np.float64,
    )


class Records(NamedTuple):
    """What a client answers from: features int32 (N, D), labels int64 (N,), and whose each image is, int64
    (N,); None where each is for itself."""

    features: NDArray[np.int32]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64] | None


class MeasuringClient:
    """Keeps the features of its images, as integers, in its folder; nothing of a round is kept."""

    def __init__(self, behaviour: Measure, index: int, folder: Path) -> None:
        self.index = index
        self._behaviour, self._folder = behaviour, folder

    def prepare(self, *, answered: bool) -> None:
        self.records()

    def require(self) -> None:
        if self._path.exists():
            read_arrays(self._path)  # what is gone can be made again: it follows from the images

    def answer(self, broadcast: Broadcast, state: Arrays | None) -> MeasuredAnswer:
        return MeasuredAnswer(self._behaviour.answers_of(self, broadcast).copy())

    def records(self) -> Records:
        components = self._behaviour.components
        if not self._path.exists():
            features, labels = components.features(self.index, alike=True)
            if not components.architecture.classes:
                labels = np.zeros_like(labels)
            make_private_folder(self._folder)
            kept: dict[str, NDArray[Any]] = {"features": quantise_features(features), "labels": labels}
            if (persons := components.persons(self.index)) is not None:
                kept["persons"] = persons
            write_atomic(self._path, save(kept), mode=0o600)
        arrays = read_arrays(self._path)
        try:
            persons = None if components.config.data.person is None else arrays["persons"].astype(np.int64)
            return Records(arrays["features"].astype(np.int32), arrays["labels"].astype(np.int64), persons)
        except KeyError as error:
            raise RunFolderError(f"{self._path} is damaged: it lacks {error.args[0]}") from None

    @property
    def _path(self) -> Path:
        return self._folder / "features.safetensors"


class MeasuringServer:
    """The posterior of the clients' moments, and the training that follows it."""

    def __init__(self, behaviour: Measure) -> None:
        self._behaviour = behaviour
        self._state: ServerState | None = None

    @cached_property
    def _prior(self) -> Prior:
        """The public guess of the moments; its spectrum is that of images within a class, too."""
        basis, variance = self._behaviour.components.public_basis
        # Dead leaves have no classes, so part of their variance is that between classes.
        spectrum = 0.5 * variance
        rows = self._behaviour.components.config.measured.rows or self._best_rows(spectrum)
        return self._guess(basis[:rows], spectrum[:rows])

    def _best_rows(self, spectrum: Array) -> int:
        """How many of these rows the public rule asks along."""
        components = self._behaviour.components
        guess, classes = components.config.measured.prior, components.architecture.classes or 1

        def expected(rows: int) -> Expected:
            own = np.eye(rows)  # in the basis's own coordinates
            prior = Prior(np.zeros((classes, rows)), own, spectrum[:rows], own=guess, shared=guess)
            clients = components.config.invited
            plan = components.plan.measured
            return expected_rounds(plan, prior, spectrum, clients=clients, length=self._length)

        return best_rows(expected, len(spectrum))

    def _guess(self, basis: Array, spectrum: Array) -> Prior:
        """The prior over a basis (r, D), rounded to what clients are sent of it."""
        components = self._behaviour.components
        shape = components.architecture.classes or 1, components.extractor.dimension
        whole, unit = _sixteen_bits(basis)
        guess = components.config.measured.prior
        return Prior(np.zeros(shape), whole.astype(np.float64) * unit, spectrum, own=guess, shared=guess)

    @cached_property
    def _posterior(self) -> RowPosterior:
        return RowPosterior.start(self._prior)

    def _directions(self) -> AskedRows:
        """What is asked: k directions, or as many as there are coordinates."""
        prior = self._prior
        count = min(self._behaviour.planned(1).directions, prior.variances.size)
        asked = principal_directions(prior, self._posterior.variances, count, prior.spectrum)
        return AskedRows(asked.row_numbers, asked.by_class.astype(np.float32).astype(np.float64))

    def _length(self, posterior: RowPosterior, asked: AskedRows, planned: MeasuredRelease) -> float:
        """A: as long as answers should be by what is public so far; c too, where an image is protected.

        Images of one person are taken for as alike as one image: its sum is as many times an image's answer
        as it has images, and a client's answer is the mean of as many unlike ones as it has persons. c stands
        in units of A, and those are an image's where persons are protected.
        """
        components, prior = self._behaviour.components, posterior.prior
        measured, persons = components.config.measured, components.config.data.person is not None
        records = people(components.partition.persons) or planned.records
        client, image = answer_clips(
            prior,
            posterior.variances,
            asked,
            prior.spectrum,
            records=records,
            margin=measured.margin,
            concentration=concentration(components.config, records, prior.classes),
        )
        found = client if measured.unit == "client" else image / (1.0 if persons else planned.record_clip)
        return float(np.clip(float(f"{found:.6g}"), *LENGTHS))

    def public(self, round_number: int, theta: Array) -> Arrays:
        with one_thread():  # products of floats, which must not depend on how many workers there are
            return self._public(round_number)

    def _public(self, round_number: int) -> Arrays:
        asked, planned = self._directions(), self._behaviour.planned(round_number)
        seed = self._behaviour.components.config.federation.seed
        embedding = hashlib.sha256(
            f"prism-secure/v1/measured embedding\0{public_seed(seed, 'embedding', round_number)}".encode()
        )
        basis, unit = _sixteen_bits(self._prior.basis)
        spare = planned.directions - len(asked.row_numbers)  # of no length: nothing is asked with them
        return {
            "basis": basis,
            "unit": np.array([unit]),
            "rows": np.pad(asked.row_numbers, (0, spare)).astype(np.uint16),
            "by_class": np.pad(asked.by_class, ((0, 0), (0, spare))).astype(np.float32),
            "reference": self._posterior.mean.astype(np.float32),
            "embedding": np.frombuffer(embedding.digest(), np.uint8),
            "terms": terms(in_features(planned, self._length(self._posterior, asked, planned))),
        }

    def absorb(self, broadcast: Broadcast, opened: Opened) -> Step:
        with one_thread(self._behaviour.components.config.federation.device):
            return self._absorbed(broadcast, opened)

    def _absorbed(self, broadcast: Broadcast, opened: Opened) -> Step:
        behaviour, posterior = self._behaviour, self._posterior
        asked, directions = behaviour.checked_round(broadcast), self._directions()
        found = measured_mean(asked, opened.counts, opened.survivors)
        values = found.value[: len(directions.row_numbers)] + posterior.expected(directions)
        self._posterior = posterior.answered(directions, values, found.variance)
        return self._step(broadcast)

    def lost(self, broadcast: Broadcast, moments: FeatureMoments | None) -> Step | None:
        """Train on what earlier rounds have told: the last round's training is most of all of it."""
        if self._state is None:
            return None
        with one_thread(self._behaviour.components.config.federation.device):
            return self._step(broadcast)

    def _step(self, broadcast: Broadcast) -> Step:
        config = self._behaviour.components.config
        self._state = self._trained(broadcast)
        theta = self._state.theta(config.mask.temperature, config.privacy.theta_min)
        return Step(theta, 1.0, theta - broadcast.theta, self._state.loss)

    def _trained(self, broadcast: Broadcast) -> ServerState:
        components, prior = self._behaviour.components, self._prior
        config, trainer = components.config, components.trainer
        measured, rounds = config.measured, components.plan.rounds
        training = ServerTraining(
            trainer,
            steps=rounds * measured.steps + measured.end_steps,
            start=config.training.learning_rate,
            end=0.1 * config.training.learning_rate,
            smoothing=measured.smoothing,
        )
        known = 1 - self._posterior.variances / np.maximum(prior.variances, 1e-12)
        weights = (torch.from_numpy(part).float() for part in (prior.class_axes, prior.basis, known))
        state = self._state or ServerState.start(trainer, torch.from_numpy(broadcast.theta))
        return training.run(
            state,
            self._posterior.mean,
            Metric(*weights),
            steps=steps_after(broadcast.round, rounds=rounds, each=measured.steps, end=measured.end_steps),
            seed=public_seed(config.federation.seed, "server latents", broadcast.round),
        )

    def saved(self) -> Arrays:
        if self._state is None:
            return {}
        trained = {f"training.{name}": array for name, array in self._state.to_arrays().items()}
        prior = self._prior
        return {
            **trained,
            "basis": prior.basis,  # elsewhere it might come out other in its last digits
            "spectrum": prior.spectrum,
            "coordinates": self._posterior.coordinates,
            "variances": self._posterior.variances,
        }

    def load(self, saved: Arrays) -> None:
        if not saved:
            return
        prefix = "training."
        trained = {name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)}
        self._state = ServerState.from_arrays(dict(trained))
        basis, spectrum, coordinates, variances = (
            np.asarray(saved[name], np.float64) for name in ("basis", "spectrum", "coordinates", "variances")
        )
        prior = self._prior = self._guess(basis, spectrum)
        if not coordinates.shape == variances.shape == prior.variances.shape:
            raise ValueError(f"moments {coordinates.shape} do not fit a basis of {len(spectrum)} rows")
        self._posterior = RowPosterior(prior, coordinates, variances)


def _sixteen_bits(basis: Array) -> tuple[NDArray[np.int16], float]:
    """Orthonormal rows (r, D) as integers and their unit; what comes out of it again does not change.

    Each entry moves by 2^-16 of the largest: what is asked is along these very rows, so nothing is lost.
    """
    unit = 2.0 ** (math.ceil(math.log2(np.abs(basis).max())) - 15)
    return np.rint(np.clip(basis / unit, -32767, 32767)).astype(np.int16), unit
