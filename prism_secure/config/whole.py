"""A whole configuration: its sections, what they say together, and what may not stand side by side."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from prism_secure.config.plugged import is_reference
from prism_secure.config.sections import (
    KEEP_TO_THE_RELEASE,
    Aggregation,
    Budget,
    Data,
    Features,
    Federation,
    Mask,
    Measured,
    Metrics,
    Model,
    Privacy,
    Section,
    SecureSum,
    Training,
)

SPARSE_ABOVE = 200
"""Secure sums of more clients run on a sparse graph: on the complete one each works for all n."""


class Config(Section, frozen=True):
    """Everything that determines a run, apart from the clients' secret coins."""

    data: Data = Data()
    federation: Federation = Federation()
    model: Model = Model()
    mask: Mask = Mask()
    features: Features = Features()
    training: Training = Training()
    measured: Measured = Measured()
    aggregation: Aggregation = Aggregation()
    privacy: Privacy = Privacy()
    secure_sum: SecureSum = SecureSum()
    budget: Budget = Budget()
    metrics: Metrics = Metrics()

    def __post_init__(self) -> None:
        if self.invited < 3:
            raise ValueError(
                "federation.client_fraction must invite at least 3 clients, the secure sum's least; "
                f"{self.federation.client_fraction} of {self.federation.clients} are {self.invited}"
            )
        self._check_sum()
        clip, space = self.privacy.clip, self.privacy.clip_space
        if self.training.fill_clip and (clip is None or space != "probability"):
            raise ValueError("training.fill_clip needs a privacy.clip in privacy.clip_space = 'probability'")
        if self.mask.score_layers and (self.privacy.flip or clip is not None):
            raise ValueError(
                "mask.score_layers needs privacy.flip = 0 and no privacy.clip: beside scores that leave "
                "without noise, noise on bits would promise nothing"
            )
        if self.mask.mode == "annealed" and self.limits:
            raise ValueError(
                "mask.mode = 'annealed' is hard in the last of federation.rounds, and budget.epsilon may end "
                "the run before; take another mode, or budget.epsilon = none"
            )
        if self.measures:
            self._check_measured()
        elif self.data.person is not None:
            raise ValueError(
                'data.person must be none unless federation.behaviour = "measure": elsewhere noise is made '
                f"for one image by itself, and nothing is clipped by person; got {self.data.person!r}"
            )
        elif self.budget.image_epsilon is not None:
            raise ValueError(
                'budget.image_epsilon must be none unless federation.behaviour = "measure": elsewhere an '
                f"image's epsilon is privacy.record_epsilon from the start, got {self.budget.image_epsilon:g}"
            )
        if self.graph == "harary":
            self._check_sparse()
        if self.secure_sum.suite != "x25519":
            self._check_suite()
        if self.cohort < 1:
            raise ValueError(
                f"privacy.colluders must leave an honest survivor: min_survivors = {self.min_survivors}, "
                f"got {self.privacy.colluders}"
            )
        if self.record_level and not self.keeps_to_the_release:
            raise ValueError(
                "privacy.record_epsilon must be inf with federation.behaviour = "
                f"{self.federation.behaviour!r}, because nothing says what that reads of the images; got "
                f"{self.privacy.record_epsilon:g}"
            )
        if self.record_level and self.own_features:
            raise ValueError(
                "privacy.record_epsilon must be inf with features.extractors of your own, because a release "
                f"that is kept does not say which code it was made by; got {self.privacy.record_epsilon:g}"
            )
        if self.record_level and not self.features.bounded:
            raise ValueError(
                "features.bounded must be true with a finite privacy.record_epsilon, because one image may "
                "move a sum of features only so far; got false (privacy.record_epsilon = inf makes no claim)"
            )
        if self.features.products and not self.features.bounded:
            raise ValueError(
                "features.products must be 0 with features.bounded = false, whose products have no bound; "
                f"got {self.features.products}"
            )
        if self.training.end_steps and not self.opens_moments and not self.measures:
            raise ValueError(
                'training.end_steps must be 0 unless privacy.record_release = "summed" and '
                "privacy.record_epsilon is finite: the server trains towards moments that everybody saw; "
                f"got {self.training.end_steps}"
            )
        if self.training.end_steps and self.mask.mode != "hard":
            raise ValueError(
                "training.end_steps must be 0 unless mask.mode = 'hard', the masks that the server trains; "
                f"got {self.training.end_steps} with {self.mask.mode!r}"
            )
        if self.record_cohort > self.moments_cohort:
            raise ValueError(
                f"privacy.record_cohort must be at most min_survivors - colluders = {self.moments_cohort}, "
                f"got {self.record_cohort}"
            )

    def _check_measured(self) -> None:
        measured, privacy, mine = self.measured, self.privacy, 'with federation.behaviour = "measure"'
        if math.isinf(measured.epsilon) == (measured.radius is None):
            radius = "none" if measured.radius is None else f"{measured.radius:g}"
            raise ValueError(
                "measured.epsilon and measured.radius: one says how far bits may move, so epsilon is inf "
                f"or radius is none; got {measured.epsilon:g} and {radius}"
            )
        refused = (
            (
                self.record_level,
                f"privacy.record_epsilon must be inf {mine}: no moments are released beside the answers; for "
                'one image set measured.unit = "image" and measured.epsilon',
                privacy.record_epsilon,
            ),
            (
                privacy.clip is not None,
                f"privacy.clip must be none {mine}: measured.epsilon, or measured.radius, limits the bits",
                privacy.clip,
            ),
            (
                privacy.flip == 0,
                f"privacy.flip must be above 0 {mine}: at 0 a bit could be certain",
                privacy.flip,
            ),
            (
                self.mask.score_layers > 0,
                f"mask.score_layers must be 0 {mine}: only the bits of answers leave",
                self.mask.score_layers,
            ),
            (
                not self.features.bounded,
                f"features.bounded must be true {mine}: answers are exact for features of norm 1 at most",
                False,
            ),
            (
                self.training.variance_weight > 0,
                f"training.variance_weight must be 0 {mine}: only means are asked for",
                self.training.variance_weight,
            ),
        )
        for wrong, message, got in refused:
            if wrong:
                raise ValueError(f"{message}; got {got}")

    def _check_sum(self) -> None:
        n, survivors = self.invited, self.min_survivors
        clients = "federation.clients" if self.everybody else "the clients a round invites"
        if survivors > n:
            raise ValueError(f"secure_sum.min_survivors must be at most {clients} = {n}, got {survivors}")
        if self.secure_sum.dropouts and not self.dropping_out:
            raise ValueError(
                f"secure_sum.dropouts must be 0 or at least 1/{n}, one client of a round, got "
                f"{self.secure_sum.dropouts:g}"
            )
        if n - self.dropping_out < survivors:
            raise ValueError(
                f"secure_sum.min_survivors must be at most {n - self.dropping_out}, which "
                f"secure_sum.dropouts = {self.secure_sum.dropouts:g} leaves of {n} clients; got {survivors}"
            )
        if self.dropping_out and self.secure_sum.simulate:
            raise ValueError(
                "secure_sum.dropouts must be 0 with secure_sum.simulate, which knows the sizes of messages "
                f"where nobody drops out; got {self.secure_sum.dropouts:g}"
            )
        if self.graph == "chosen":
            return  # it has a threshold of its own, and bears these colluders
        if self.threshold > survivors:
            raise ValueError(self._too_few_for_the_threshold(clients))
        if 2 * self.threshold <= n:
            raise ValueError(f"secure_sum.threshold must be above n/2 = {n / 2:g}, got {self.threshold}")
        if self.secure_sum.mode == "semi_honest":
            ok, bound = self.privacy.colluders < self.threshold, f"threshold = {self.threshold}"
        else:
            ok, bound = (
                self.privacy.colluders < 2 * self.threshold - n,
                f"2 * threshold - n = {2 * self.threshold - n}",
            )
        if not ok:
            raise ValueError(f"privacy.colluders must be below {bound}, got {self.privacy.colluders}")

    def _too_few_for_the_threshold(self, clients: str) -> str:
        """What was set that asks for more shares than survivors have: nobody need have set the threshold."""
        n, survivors, colluders = self.invited, self.min_survivors, self.privacy.colluders
        if self.secure_sum.threshold is not None:
            return f"secure_sum.threshold must be at most min_survivors = {survivors}, got {self.threshold}"
        least = self._least_threshold(n, 0)
        if least > survivors:
            return (
                f"secure_sum.min_survivors must be at least {least}, the threshold by rule where {clients} = "
                f"{n}, got {survivors}"
            )
        most = max(c for c in range(colluders) if self._least_threshold(n, c) <= survivors)
        return (
            f"privacy.colluders must be at most {most} where {clients} = {n} and min_survivors = "
            f"{survivors}, got {colluders} (a recipe sets it for its own number of clients)"
        )

    def _check_sparse(self) -> None:
        if self.secure_sum.threshold is not None:
            raise ValueError(
                f"secure_sum.threshold must be none above {SPARSE_ABOVE} semi-honest clients, where the "
                f"sparse graph needs one of its own, got {self.secure_sum.threshold}"
            )
        from prism_crypto import CountSpec, PolicyError, Session  # only large cohorts wait for the import

        n = self.invited
        try:
            Session.plan(
                CountSpec(dimension=1),
                range(n),
                federation="plan",
                number=1,
                mode="semi_honest",
                min_survivors=self.min_survivors,
                colluders=self.privacy.colluders,
                graph="harary",
            )
        except PolicyError as error:
            raise ValueError(
                f"secure_sum.min_survivors and privacy.colluders must leave most of {n} clients honest and "
                f"present: {error}"
            ) from None

    def _check_suite(self) -> None:
        from prism_crypto import PolicyError  # only hybrid sessions wait for the import
        from prism_crypto.primitives.hybrid import check_available

        try:
            check_available()
        except PolicyError as error:
            raise ValueError(f"secure_sum.suite can't be {self.secure_sum.suite} here: {error}") from None

    def latent_group(self, client: int) -> int:
        """The clients that draw the same latents as this one in a round have the same number."""
        groups, n = self.training.latent_groups, self.federation.clients
        return client * groups // n if groups else client

    @property
    def trains_alike(self) -> bool:
        """Whether the clients of a latent group all train the same scores: towards one opened sum, from equal
        states in every round."""
        groups = self.federation.behaviour == "train" and self.training.latent_groups > 0
        return groups and self.opens_moments and self.everybody

    @property
    def keeps_to_the_release(self) -> bool:
        """Whether rounds may follow a record-level release and cost an image nothing more."""
        return self.federation.behaviour in KEEP_TO_THE_RELEASE

    @property
    def own_network(self) -> bool:
        """Whether the generator is a network of the user's own."""
        return is_reference(self.model.network)

    @property
    def own_features(self) -> tuple[str, ...]:
        """Extractors of the user's own."""
        return tuple(filter(is_reference, self.features.extractors))

    @property
    def private_metrics(self) -> bool:
        """Whether the metrics say something about held-out images that are private: no epsilon covers it."""
        return self.metrics.held_out == "private" or (self.metrics.held_out is None and self.own_files)

    @property
    def public_images(self) -> bool:
        """Whether metrics may look at the clients' images, too: they and the held-out ones are public."""
        declared = self.metrics.client_images or ("private" if self.own_files else "public")
        return declared == "public" and not self.private_metrics

    @property
    def own_files(self) -> bool:
        """Whether images come from files of the user's own."""
        return self.data.source in ("idx", "images")

    @property
    def invited(self) -> int:
        """How many clients a round invites; each round's secure sum runs over them."""
        return int(self.federation.client_fraction * self.federation.clients + 1e-9)

    @property
    def dropping_out(self) -> int:
        """How many of those `secure_sum.dropouts` has drop out of each round."""
        return int(self.secure_sum.dropouts * self.invited + 1e-9)

    @property
    def everybody(self) -> bool:
        """Whether every round invites all clients."""
        return self.invited == self.federation.clients

    @property
    def graph(self) -> Literal["complete", "harary", "chosen"]:
        """Who masks with whom in the secure sum: all with all, or on a sparse graph (Bell et al. 2020), drawn
        by the server in semi-honest mode, by the clients themselves in active mode."""
        if self.invited <= SPARSE_ABOVE:
            return "complete"
        if self.secure_sum.mode == "semi_honest":
            return "harary"
        return "chosen" if self._chosen_cohort else "complete"

    @property
    def _chosen_cohort(self) -> int:
        """The cohort that a graph which clients choose guarantees; 0 where there is none."""
        if self.secure_sum.threshold is not None or self.invited <= SPARSE_ABOVE:
            return 0
        from prism_crypto.session import chosen_cohort  # only large cohorts wait for the import

        return chosen_cohort(self.invited, colluders=self.privacy.colluders, min_survivors=self.min_survivors)

    @property
    def sparse(self) -> bool:
        """Whether each client masks with some others only, not with all of them."""
        return self.graph != "complete"

    @property
    def sum_failure(self) -> float:
        """Probability, a round, that the secure sum's graph fails to hide uploads; delta pays for it. (On a
        graph that clients choose it is that of all rounds together.)"""
        return 2.0**-40 if self.sparse else 0.0

    @property
    def min_survivors(self) -> int:
        """The least number of clients whose sum every client agrees to open."""
        return self.secure_sum.min_survivors or self.invited

    @property
    def threshold(self) -> int:
        """How many clients' shares open the sum on the complete graph (Bonawitz et al. 2017, section 4.2)."""
        if self.secure_sum.threshold is not None:
            return self.secure_sum.threshold
        return self._default_threshold(self.invited)

    def _default_threshold(self, n: int) -> int:
        return self._least_threshold(n, self.privacy.colluders)

    def _least_threshold(self, n: int, colluders: int) -> int:
        if self.secure_sum.mode == "active":
            return max(2 * n // 3, (n + colluders) // 2) + 1
        return max(n // 2, colluders) + 1

    @property
    def cohort(self) -> int:
        """Honest clients guaranteed in every opened sum of masks, the target included: all survivors but the
        colluders; on a graph that clients choose, what that guarantees against a server that lies."""
        if self.graph == "chosen":
            return self._chosen_cohort
        return self.min_survivors - self.privacy.colluders

    @property
    def limits(self) -> str:
        """The budgets that are set, as they are written; "" where none is."""
        limits = msgspec.structs.asdict(self.budget)
        return " and ".join(f"budget.{name} = {x}" for name, x in limits.items() if x is not None)

    @property
    def record(self) -> str:
        """What a record-level epsilon protects, in a word: an "image", or all those of a "person"."""
        return "image" if self.data.person is None else "person"

    @property
    def calibrated_for(self) -> str:
        """Whom `measured.epsilon` is for, in a word: a "client", or what `record` says."""
        return "client" if self.measured.unit == "client" else self.record

    @property
    def measures(self) -> bool:
        """Whether rounds are measured: clients answer in public directions, and only these bits leave."""
        return self.federation.behaviour == "measure"

    @property
    def record_level(self) -> bool:
        """Whether privacy.record_epsilon is finite: clients train from one noisy release, not from images."""
        return math.isfinite(self.privacy.record_epsilon)

    @property
    def opens_moments(self) -> bool:
        """Whether that release is the sum over all clients, which everybody sees."""
        return self.record_level and self.privacy.record_release == "summed"

    @property
    def moments_survivors(self) -> int:
        """The least number of clients in the sum of moments, which invites all: as many may be missing as in
        a round."""
        return self.federation.clients - (self.invited - self.min_survivors)

    @property
    def moments_threshold(self) -> int:
        """As `threshold`, for the sum of moments."""
        return self.threshold if self.everybody else self._default_threshold(self.federation.clients)

    @property
    def moments_cohort(self) -> int:
        """Honest clients guaranteed in the sum of moments."""
        return self.moments_survivors - self.privacy.colluders

    @property
    def record_cohort(self) -> int:
        """Honest clients whose shares of the noise make up all of a summed release's."""
        return self.privacy.record_cohort or self.moments_cohort


msgspec.json.Decoder(Config)  # prepared at import: not by two threads at once
