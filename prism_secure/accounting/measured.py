"""Measured rounds of a configuration: what each releases, with its clips, before round 1.

Every party computes the plan by itself, from public settings alone, and gets the same: a client answers under
the clips of its own plan, and the ledger charges them. The longest answer of a client, A, is the unit of
length here: no epsilon depends on how long it is in a round, so the server may say so (see
`prism_secure.rounds.behaviours.measure`); c stands in units of A. An epsilon to reach is met by the view of
the opened sums, of a client that is left out or of an image that is replaced by any other; the cohort is the
honest clients that each opened sum surely has. Where rounds invite some of the clients only, it is met by the
client whose rounds cost most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from prism_privacy import (
    Adjacency,
    InvalidParameter,
    MeasuredRelease,
    PrivacyError,
    Unit,
    View,
    calibrate_measured,
)
from prism_privacy.accounting.accountant import guarantee_of
from prism_privacy.measured.calibrate import MeasuredCalibration
from prism_privacy.measured.embedding import MOST_COORDINATES
from prism_secure.accounting.clip_rules import clip_shares, rounded_down
from prism_secure.accounting.record_release import ImageView, honest_words
from prism_secure.config import Config, Measured
from prism_secure.config.invitations import histories
from prism_secure.errors import ConfigError
from prism_secure.wording import SEEN

MOST_CUT_OFF = 0.05
"""What share of the bits may meet their limits without a word."""


def releases(
    config: Config,
    dimension: int,
    sizes: Sequence[int] | None = None,
    persons: Sequence[int] | None = None,
) -> tuple[MeasuredRelease, ...]:
    """What each of `federation.rounds` measured rounds releases of a client, in order.

    Args:
        config: its `federation.behaviour` is "measure".
        dimension: d, the length of a mask.
        sizes: images of each client, by the public partition; needed with `measured.records = 0`.
        persons: how many persons each has; needed with `data.person`, unless `measured.record_clip` is set.

    Raises:
        ConfigError: the mask is shorter than `measured.coordinates`, nobody says how many images or persons
            clients have, or no clip reaches the epsilon.

    >>> from prism_secure.config import load_config
    >>> config = load_config(None, ["federation.behaviour=measure", "privacy.record_epsilon=inf",
    ...                             "federation.rounds=2", "measured.epsilon=inf", "measured.radius=1.0"])
    >>> [(each.clip, each.client_clip, each.records) for each in releases(config, 100_000, [1000] * 10)]
    [(0.3, 1.0, 1000), (1.0, 1.0, 1000)]
    """
    privacy, records = config.privacy, _records(config.measured, sizes)
    if config.data.person is not None and not persons and config.measured.record_clip is None:
        raise ConfigError(
            "measured.record_clip must be given with data.person where nobody knows how many persons the "
            "clients have: how many images one of them has is a start; got none"
        )
    return _releases(
        config.measured,
        config.federation.rounds,
        flip=privacy.flip,
        delta=privacy.delta,
        cohort=config.cohort,
        sum_failure=config.sum_failure,
        coordinates=coordinates(config.measured, dimension),
        records=records,
        people=people(persons) or records,
        histories=histories(config),
    )


def image_view(config: Config, upload: float) -> ImageView:
    """Whom one image is protected from over measured rounds, and what is left where uploads are seen.

    Args:
        config: its `federation.behaviour` is "measure".
        upload: epsilon of one image against an observer of its client's uploads.
    """
    whose = "clients" if config.everybody else "clients of a round"
    return ImageView(
        "an observer of the opened sums",
        *honest_words(config.cohort, config.invited, config.min_survivors, whose),
        ((f"its client's uploads {SEEN}", upload),),
    )


def coordinates(measured: Measured, dimension: int) -> int:
    """m: how many of a mask's d coordinates carry answers.

    Raises:
        ConfigError: the mask has fewer.

    >>> coordinates(Measured(coordinates=0), 114_824)
    65536
    """
    most = min(1 << (dimension.bit_length() - 1), MOST_COORDINATES)
    found = measured.coordinates or most
    if found > dimension or found < measured.directions:
        raise ConfigError(
            f"measured.coordinates and measured.directions must fit a mask of {dimension:,} weights: at most "
            f"{most} coordinates and no more directions than coordinates, got {found} and "
            f"{measured.directions}"
        )
    return found


def _records(measured: Measured, sizes: Sequence[int] | None) -> int:
    """N: with the average of public sizes, each image weighs the same in the mean over clients."""
    if measured.records:
        return measured.records
    if not sizes:
        raise ConfigError(
            "measured.records must be given where nobody knows how many images the clients have: it is the "
            "same public number for all, got 0"
        )
    return max(1, round(sum(sizes) / len(sizes)))


def people(persons: Sequence[int] | None) -> int | None:
    """P: how many persons a client has on average; None where nobody says, or each image is for itself."""
    return max(1, round(sum(persons) / len(persons))) if persons else None


def concentration(config: Config, records: int, classes: int) -> float:
    """What is expected of the sum of squares of a client's class shares, by public settings alone.

    `measured.concentration`, where it is set. Else by `data.partition`: of images dealt at random two of a
    client are of one class by chance, 1/K; of shards two are of one shard, or of one class by chance; of
    Dirichlet shares it is their expected sum of squares.

    Args:
        config: the settings.
        records: N, images of a client, or persons where these are dealt.
        classes: K.

    >>> from prism_secure.config import load_config
    >>> shards = load_config(None, ["data.partition=shards", "data.shards_per_client=2"])
    >>> [round(concentration(config, 10, 10), 3) for config in (load_config(None, []), shards)]
    [0.19, 0.55]
    """
    if config.measured.concentration is not None:
        return config.measured.concentration
    data = config.data
    alike, one = 1 / classes, 1 / records
    if data.partition == "shards":
        one = 1 / min(data.shards_per_client, records)
    elif data.partition == "dirichlet":
        alike = (1 + data.dirichlet_alpha) / (1 + classes * data.dirichlet_alpha)
    return one + (1 - one) * alike


def record_clip(measured: Measured, records: int, people: int | None = None) -> float:
    """c in units of A: what one image, or one person, may answer, of the most that a client may.

    A client's answer is a mean, so c = A cuts it at no more than A: where an image is protected, nothing else
    does. Answers of N unlike images add up like independent ones: with c = sqrt(N) A few are cut.

    A client of P persons with n = N/P images each answers with 1/N of P sums that are cut at c each. c = n A
    cuts it at no more than A, which is c = A again where a person is one image. (With c = A the answer of P
    persons were A/n at most: bits could not make all of the move C that a client is charged for.) Sums of P
    unlike persons, of length s each, add up to sqrt(P) s, which is N A if the answer is as long as A: with
    c = N A / sqrt(P) = n sqrt(P) A few are cut. How alike the images of one person are does not matter here.

    Args:
        measured: the settings.
        records: N.
        people: P, public as N is; None: a person is one image.

    >>> record_clip(Measured(), 10), record_clip(Measured(unit="image"), 1000)
    (3.16228, 1.0)
    >>> record_clip(Measured(), 100, 25), record_clip(Measured(unit="image"), 100, 25)
    (20.0, 4.0)
    """
    if measured.record_clip is not None:
        return measured.record_clip
    people = min(people or records, records)
    each = records / people
    return _six_digits(each * math.sqrt(people) if measured.unit == "client" else each)


def cut_off(plan: Sequence[MeasuredRelease], measured: Measured) -> str:
    """Words for answers of which the box [f, 1 - f] takes a part that shows; "" where it does not.

    An answer as long as A moves m bits by C / sqrt(m) in quadratic mean, each by about a normal number x, and
    a bit has room for t = 1/2 - f. By Stein's lemma E[x clip(x)] / E[x^2] = P(|x| < t). Where a client is
    protected, answers are about that long. Where an image is, how far they stay below A is not known before
    round 1. In both cases a C is named by which no two points of the box lie apart, 2 t sqrt(m).

    >>> from dataclasses import replace
    >>> each = MeasuredRelease(flip=0.45, clip=9.0, client_clip=1.0, record_clip=1.0, records=10,
    ...                        coordinates=16_384, directions=64)
    >>> cut_off([each], Measured()).split(" of ")[0], cut_off([each], Measured(unit="image"))
    ('48%', '')
    >>> cut_off([replace(each, clip=999_900.0)], Measured(unit="image"))
    'privacy.flip alone limits how far a client moves its bits, to 12.8: the plan would allow C = 999,900'
    >>> cut_off([replace(each, coordinates=1 << 20)], Measured())
    ''
    """
    widest = max(plan, key=lambda each: each.clip / (math.sqrt(each.coordinates) * (0.5 - each.flip)))
    deviation, room = widest.clip / math.sqrt(widest.coordinates), 0.5 - widest.flip
    share = math.erfc(room / deviation / math.sqrt(2))
    most = 2 * room * math.sqrt(widest.coordinates)
    box = ""
    if widest.clip > most:
        box = f"privacy.flip alone limits how far a client moves its bits, to {most:.3g}: "
        box += f"the plan would allow C = {widest.clip:,.6g}"
    if measured.unit != "client" or share < MOST_CUT_OFF:
        return box
    enough = widest.coordinates << math.ceil(2 * math.log2(2.5 * deviation / room))
    advice = "a smaller privacy.flip or measured.epsilon gives"
    if enough <= MOST_COORDINATES:
        advice = f"measured.coordinates = {enough}, where the mask has as many, or a smaller flip, gives"
    return (
        f"{share:.0%} of the bits meet their limits, privacy.flip and 1 - privacy.flip, and answers lose "
        f"that much of their signal: {advice} them room" + (f"; {box}" if box else "")
    )


@lru_cache(maxsize=64)
def _releases(
    measured: Measured,
    rounds: int,
    *,
    flip: float,
    delta: float,
    cohort: int,
    sum_failure: float,
    coordinates: int,
    records: int,
    people: int,
    histories: tuple[tuple[int, ...], ...],
) -> tuple[MeasuredRelease, ...]:
    shares = clip_shares(rounds, first=measured.first_round, growth=measured.growth)
    largest = measured.radius or 1.0
    try:
        plan = [
            MeasuredRelease(
                flip=flip,
                clip=min(largest, _six_digits(largest * share / shares.max())),
                client_clip=1.0,
                record_clip=record_clip(measured, records, people),
                records=records,
                coordinates=coordinates,
                directions=measured.directions,
                cohort=cohort,
                sum_failure=sum_failure,
            )
            for share in shares
        ]
    except InvalidParameter as error:
        raise ConfigError(f"measured: {error}") from None
    if math.isinf(measured.epsilon):
        return tuple(plan)
    try:
        found = _calibrated([[plan[number - 1] for number in own] for own in histories], measured, delta)
    except PrivacyError as error:
        raise ConfigError(
            f"measured.epsilon = {measured.epsilon:g} is reached by no clips of {rounds} rounds: {error}"
        ) from None
    if found.epsilon < 0.9 * measured.epsilon:
        raise ConfigError(
            f"measured.epsilon = {measured.epsilon:g} is reached by no clips of {rounds} rounds: the nearest "
            f"that they come to is {found.epsilon:.3g}"
        )
    return tuple(replace(each, clip=rounded_down(found.factor * each.clip, 4)) for each in plan)


def _calibrated(
    clients: Sequence[Sequence[MeasuredRelease]], measured: Measured, delta: float
) -> MeasuredCalibration:
    """For the client who reaches the epsilon with the smallest clips: all others are within it then.

    Args:
        clients: the rounds that each client is in.
    """
    unit = Unit.CLIENT if measured.unit == "client" else Unit.RECORD
    found: MeasuredCalibration | None = None
    # The dearest is almost always the first of these, and to look whether others are within takes no time.
    for own in sorted(clients, key=lambda own: sum(each.clip**2 for each in own), reverse=True):
        if found is not None:
            spent = Counter(each.scaled(found.factor).release(unit) for each in own)
            if guarantee_of(spent, delta, View.SUM, Adjacency.ZERO_OUT).epsilon <= measured.epsilon:
                continue
        found = calibrate_measured(
            own,
            epsilon=measured.epsilon,
            delta=delta,
            unit=unit,
            view=View.SUM,
            adjacency=Adjacency.ZERO_OUT if unit is Unit.CLIENT else "swap",
        )
    assert found is not None
    return found


def _six_digits(value: float) -> float:
    """Processors differ in a last digit, and a session takes only clients that name the very same clips."""
    return float(f"{value:.6g}")
