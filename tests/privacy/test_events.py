"""Releases of every kind add up through one function, and none costs more or less than it did by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from prism_privacy import (
    Accountant,
    Adjacency,
    InvalidParameter,
    MaskRelease,
    MomentRelease,
    Unit,
    UnsoundComposition,
    View,
    exact_epsilon,
)
from prism_privacy.accounting.events import (
    Composed,
    DpAccounted,
    Event,
    Loss,
    Masks,
    Moments,
    OpenedMoments,
    Stated,
    Unbounded,
    compose,
    composition,
)
from prism_privacy.accounting.kappa.store import ORDERS
from prism_privacy.accounting.renyi import renyi_curve, to_epsilon
from prism_privacy.moments.discrete_gaussian import SMOOTHING, gaussian_epsilon

DELTA = 1e-5
CELLS = [(view, adjacency) for view in View for adjacency in Adjacency]
CLIPPED = MaskRelease(0.25, 1.0, cohort=10, sum_failure=2**-40)
SCORES = MaskRelease(0.1, 0.5, cohort=5, space="score")
BOX = MaskRelease(0.25, None, cohort=5, dim=10)
NARROW = MaskRelease(0.4, None, dim=3)
SWAP, ADDED = (
    MomentRelease.calibrated(epsilon=2.0, delta=DELTA, records=1000, adjacency=adjacency, classes=10)
    for adjacency in ("swap", "add_remove")
)
SGD = dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(2.0)), 100
)


def by_hand(counts: dict[MaskRelease, int], delta: float, view: View, adjacency: Adjacency) -> float:
    """Rounds of masks: the smallest bound that holds."""

    def renyi(seen: View, left: float) -> float:
        curves = [rounds * renyi_curve(release, seen, adjacency) for release, rounds in counts.items()]
        return to_epsilon(np.sum(curves, axis=0), left)[0]

    found = [renyi(View.UPLOAD, delta)]
    if view is View.SUM:
        failing = sum(rounds * release.sum_failure for release, rounds in counts.items())
        found.append(renyi(View.SUM, delta - failing * (1 + 1e-9)))
    if all(release.clip is None for release in counts):
        bits = sum((release.dim or 0) * rounds for release, rounds in counts.items())
        found.append(exact_epsilon(min(release.flip for release in counts), bits, delta))
    return min(found)


def move(release: MomentRelease) -> float:
    """How far one image moves a release, in units of its noise."""
    least = min(release.lattice_noise)
    return release.sensitivity / (release.noise * math.sqrt(1 - (SMOOTHING / least) ** 2) * (1 - 2.0**-50))


def client(events: dict[Event, int], view: View, adjacency: Adjacency, delta: float = DELTA) -> Composed:
    return compose(events, delta, Unit.CLIENT, view, adjacency)


def image(events: dict[Event, int], adjacency: str = "swap", delta: float = DELTA) -> Composed:
    return compose(events, delta, Unit.RECORD, View.SUM, adjacency)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize(
    "counts", [{CLIPPED: 3, SCORES: 2}, {BOX: 2, NARROW: 5}, {BOX: 1, CLIPPED: 1}, {CLIPPED: 40}]
)
def test_masks_cost_what_they_cost_by_hand(
    counts: dict[MaskRelease, int], cell: tuple[View, Adjacency]
) -> None:
    accountant = Accountant(DELTA)
    for release, rounds in counts.items():
        accountant.spend(release, rounds)
    found = client({Masks(release): rounds for release, rounds in counts.items()}, *cell)
    assert (
        found.epsilon == accountant.epsilon(*cell) == pytest.approx(by_hand(counts, DELTA, *cell), rel=1e-12)
    )
    assert (found.bound, found.order) == (
        accountant.guarantee(*cell).bound,
        accountant.guarantee(*cell).order,
    )


@pytest.mark.parametrize("adjacency", list(Adjacency))
@pytest.mark.parametrize("view", list(View))
def test_an_opened_release_alone_is_gaussian_and_adds_its_curve_to_that_of_masks(
    view: View, adjacency: Adjacency
) -> None:
    kind = "add_remove" if adjacency is Adjacency.ZERO_OUT else "swap"
    moved = 3 * move(replace(ADDED, adjacency=kind)) * (math.sqrt(10) if view is View.UPLOAD else 1)
    opened = OpenedMoments(ADDED, images=3, shares=10)
    alone = client({opened: 1}, view, adjacency)
    assert alone.epsilon == pytest.approx(gaussian_epsilon(1 / moved, DELTA), rel=1e-12)
    assert alone.bound == "gaussian"
    twice = client({opened: 2}, view, adjacency).epsilon
    assert twice == pytest.approx(gaussian_epsilon(1 / (math.sqrt(2) * moved), DELTA), rel=1e-12)
    left = DELTA - (2 * CLIPPED.sum_failure * (1 + 1e-9) if view is View.SUM else 0)
    curve = ORDERS * moved**2 / 2 + 2 * renyi_curve(CLIPPED, view, adjacency)
    mixed = client({opened: 1, Masks(CLIPPED): 2}, view, adjacency).epsilon
    assert mixed == pytest.approx(to_epsilon(curve, left)[0], rel=1e-12)
    assert mixed > alone.epsilon


def test_above_100_nothing_is_proved_of_noise_made_of_shares() -> None:
    cell = (View.SUM, Adjacency.ZERO_OUT)
    by_images = {n: client({OpenedMoments(ADDED, n, 10): 1}, *cell).epsilon for n in (10, 20, 30, 40)}
    assert by_images[10] < by_images[20] <= 100 < gaussian_epsilon(1 / (40 * move(ADDED)), DELTA)
    assert math.isinf(by_images[40])
    assert client({Masks(MaskRelease(0.25, 10.0)): 100}, *cell).epsilon > 100, "which masks are not"
    for images, shares in ((0, 1), (1, 0)):
        with pytest.raises(InvalidParameter):
            OpenedMoments(ADDED, images, shares)


def test_releases_of_images_are_one_with_the_coordinates_of_all_and_others_add_epsilon_and_delta() -> None:
    other = replace(SWAP, sigma=2 * SWAP.sigma)
    assert image({Moments(SWAP): 1}).epsilon == SWAP.epsilon(DELTA), "to the last digit"
    both = gaussian_epsilon(1 / math.hypot(move(SWAP), move(other)), DELTA)
    assert image({Moments(SWAP): 1, Moments(other): 1}).epsilon == pytest.approx(both, rel=1e-12)
    stated = Stated(3.0, 1e-6, "swap")
    assert image({stated: 2}, delta=2e-6) == Composed(6.0, "stated")
    assert math.isinf(image({stated: 2}, delta=1.9e-6).epsilon)
    mixed = image({Moments(SWAP): 1, stated: 1}).epsilon
    assert mixed == pytest.approx(3.0 + SWAP.epsilon(DELTA - 1e-6), rel=1e-12)
    assert math.isinf(image({Moments(SWAP): 1, stated: 1}, delta=1e-6).epsilon), "no delta is left"


def test_dp_sgd_composes_with_itself_by_loss_distributions_and_with_moments_by_renyi() -> None:
    sgd = DpAccounted(SGD)
    for times in (1, 2):
        exact = PLDAccountant(value_discretization_interval=1e-3).compose(SGD, times).get_epsilon(DELTA)
        found = image({sgd: times}, "add_remove")
        assert (found.epsilon, found.bound) == (exact, "dp_accounting")
    mixed = image({sgd: 1, Moments(ADDED): 1}, "add_remove").epsilon
    oracle = RdpAccountant().compose(SGD).compose(dp_accounting.GaussianDpEvent(1 / move(ADDED)))
    assert mixed == pytest.approx(oracle.get_epsilon(DELTA), rel=0.01)
    alone = image({sgd: 1}, "add_remove").epsilon + ADDED.epsilon(DELTA)
    assert ADDED.epsilon(DELTA) < mixed < alone
    with pytest.raises(UnsoundComposition, match="no Rényi curve"):
        image({DpAccounted(dp_accounting.UnsupportedDpEvent()): 1}, "add_remove")


@pytest.mark.parametrize(
    ("event", "unit", "adjacency", "why"),
    [
        (Masks(CLIPPED), Unit.RECORD, "swap", "masks protect clients"),
        (Moments(SWAP), Unit.RECORD, "add_remove", "speaks of swap, not add_remove"),
        (Moments(SWAP), Unit.CLIENT, "zero_out", "no bound for a whole client"),
        (OpenedMoments(ADDED, 1, 1), Unit.RECORD, "add_remove", "use Moments"),
        (DpAccounted(SGD), Unit.RECORD, "swap", "add_remove"),
        (DpAccounted(SGD), Unit.CLIENT, "zero_out", "add_remove"),
        (Stated(1.0, 1e-6, "swap"), Unit.RECORD, "add_remove", "under swap"),
        (Unbounded("test coins"), Unit.CLIENT, "zero_out", "test coins"),
    ],
)
def test_an_event_without_a_bound_for_what_is_asked_makes_all_infinite_and_says_why(
    event: Event, unit: Unit, adjacency: str, why: str
) -> None:
    beside: Event = Moments(ADDED if adjacency == "add_remove" else SWAP)
    if unit is Unit.CLIENT:
        beside = Masks(BOX)
    for view in View:
        assert math.isfinite(compose({beside: 1}, DELTA, unit, view, adjacency).epsilon)
        found = compose({beside: 1, event: 1}, DELTA, unit, view, adjacency)
        assert (found.epsilon, found.bound) == (math.inf, "unprotected")
        assert any(why in word for word in found.why)


@pytest.mark.parametrize("unknown", [CLIPPED, SWAP, SGD, "masks"])
def test_what_is_no_event_is_refused_and_not_guessed(unknown: object) -> None:
    with pytest.raises(UnsoundComposition, match="nobody knows"):
        client({unknown: 1}, View.SUM, Adjacency.ZERO_OUT)  # type: ignore[dict-item]


def test_another_kind_of_release_joins_by_saying_what_it_costs() -> None:
    @dataclass(frozen=True)
    class Twice:
        def loss(self, unit: Unit, view: View, adjacency: str) -> Loss:
            return Loss(lambda: 2 * renyi_curve(CLIPPED, view, Adjacency(adjacency)))

    for view, adjacency in CELLS:
        found = client({Twice(): 1, Masks(replace_failure(CLIPPED)): 1}, view, adjacency).epsilon
        assert found == pytest.approx(
            client({Masks(replace_failure(CLIPPED)): 3}, view, adjacency).epsilon, rel=1e-12
        )


def replace_failure(release: MaskRelease) -> MaskRelease:
    return MaskRelease(release.flip, release.clip, release.cohort, release.space)


@pytest.mark.parametrize(
    ("events", "unit", "adjacency", "why"),
    [
        ({Masks(MaskRelease(0.0, 1.0)): 2, Masks(CLIPPED): 1}, Unit.CLIENT, "zero_out", "flip = 0 leaves"),
        ({OpenedMoments(ADDED, 10**6, 1): 1}, Unit.CLIENT, "replace_one", "all that a client has"),
        ({Moments(replace(SWAP, sigma=0.0)): 1}, Unit.RECORD, "swap", "too weak"),
        ({Stated(1.0, DELTA, "swap"): 1, Moments(SWAP): 1}, Unit.RECORD, "swap", "is used up"),
    ],
)
def test_whatever_is_infinite_says_why(
    events: dict[Event, int], unit: Unit, adjacency: str, why: str
) -> None:
    for view in View:
        found = compose(events, DELTA, unit, view, adjacency)
        assert math.isinf(found.epsilon)
        (said,) = found.why
        assert why in said


def test_what_is_infinite_only_together_says_so() -> None:
    """Each is just below ε = 100, and three of them are not."""
    noises = (OpenedMoments(replace(ADDED, sigma=1e-5 * 1.05**step), 1, 1) for step in range(400))
    least = next(noise for noise in noises if math.isfinite(client({noise: 1}, *CELLS[0]).epsilon))
    found = client({least: 3}, *CELLS[0])
    assert math.isinf(found.epsilon)
    assert found.why == ("together they pass ε = 100, above which nothing is proved of noise made of shares",)


def test_nothing_costs_nothing_and_no_noise_protects_from_nothing() -> None:
    for view, adjacency in CELLS:
        assert client({Masks(CLIPPED): 0}, view, adjacency) == Composed(0.0, "nothing spent")
        assert math.isinf(client({Masks(MaskRelease(0.0, 1.0)): 1}, view, adjacency).epsilon)
        bare = OpenedMoments(replace(ADDED, sigma=0.0), 1, 1)
        assert math.isinf(client({bare: 1, Masks(CLIPPED): 1}, view, adjacency).epsilon)
    assert math.isinf(image({Moments(replace(SWAP, sigma=0.0)): 1}).epsilon)


def test_a_curve_is_the_same_whenever_it_is_asked_for() -> None:
    """dp_accounting's accountant adds up whatever it is given."""
    loss = DpAccounted(SGD).loss(Unit.RECORD, View.SUM, "add_remove")
    assert loss.curve is not None
    first = loss.curve()
    assert np.array_equal(first, loss.curve())


@pytest.mark.parametrize("view", View)
def test_a_composition_gives_at_every_delta_what_compose_gives_at_one(view: View) -> None:
    events = {Masks(MaskRelease(0.25, 1.0, cohort=1000)): 20, Masks(MaskRelease(0.3, 2.0, cohort=500)): 3}
    of_delta = composition(events, Unit.CLIENT, view, Adjacency.ZERO_OUT)
    for delta in (1e-9, 0.5, 1e-5, 1e-9):
        assert of_delta(delta) == compose(events, delta, Unit.CLIENT, view, Adjacency.ZERO_OUT)
