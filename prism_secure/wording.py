"""Numbers in words: how the report says what an epsilon promises, and what it does not.

Figures of privacy are rounded up and shown as they are, however large; a sentence beside them says what they
are worth. The sentences follow from epsilon alone, so a run cannot be described better than it was.

Five names are those of `prism_privacy.wording`, written again, as a test holds: importing that package takes
longer than all that `generate` does with them, and a model is used where nothing of the federation is loaded.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

__all__ = [
    "CLIENT_UNIT",
    "RECORD_UNIT",
    "SCALE",
    "SEEN",
    "SUM_NOT_RUN",
    "Verdict",
    "a_record",
    "extractor_words",
    "format_bytes",
    "format_delta",
    "format_epsilon",
    "format_floor",
    "format_seconds",
    "image_verdict",
    "record_unit",
    "true_alarms",
    "verdict",
    "what_is_revealed",
]

EXTRACTORS = {
    "classifier": "the small Fashion-MNIST classifier that ships with this package (128 features); such "
    "figures compare with each other, not with the Inception figures of papers",
    "efficientnet_lite0": "192 averages, over the whole image, of the maps of an ImageNet network "
    "(EfficientNet-Lite0, installed with this package); such figures compare with each other, not with the "
    "Inception figures of papers",
    "inception_v3": "torchvision’s InceptionV3, which is not the network of published FID figures; such "
    "figures compare with each other, not with those of papers",
    "inception_fid": "the Inception network of published FID figures, from FID’s own weights; such a figure "
    "compares with a published one of as many generated images against the same real ones",
}
"""What the networks are, by `metrics.features`, that compare generated images with held-out ones."""


def extractor_words(features: str, digest: str | None = None) -> str:
    """What compared the images: one of `EXTRACTORS`, or a network of the user's own and its weights' SHA-256.

    >>> extractor_words("mine:features", "ab12").partition(";")[0]
    'mine:features, a network of the owner’s own with weights of SHA-256 ab12'
    """
    weights = f" with weights of SHA-256 {digest}" if digest else ""
    own = f"{features}, a network of the owner’s own{weights}; such figures compare with those of the same"
    return EXTRACTORS.get(features, f"{own} alone")


CLIENT_UNIT = "everything one client contributes"
RECORD_UNIT = "one image of one client"
"""What an epsilon protects, in words."""
SUM_NOT_RUN = "the secure sum is not run (secure_sum.simulate): ε(SUM) is what it would be with one"
"""For whoever starts such a run, or reads what it would guarantee."""
SEEN = "seen in the clear"
"""How a condition on epsilon of an image ends that is the UPLOAD view of it."""
STRONG, LIMITED = 1, 10
"""An epsilon up to here is a strong, or a limited, guarantee: one scale for every page."""
SCALE = (
    f"Up to ε = {STRONG} a guarantee is called strong here, up to {LIMITED} limited; above, it is no "
    "meaningful one by itself, and inf is none."
)
FALSE_ALARMS = 0.01
"""The rate at which the tests that `verdict` speaks of accuse wrongly."""


class Verdict(msgspec.Struct, frozen=True):
    """What an epsilon is worth: a word for the kind of guarantee, and a sentence."""

    level: str
    """"none", "weak", "limited" or "strong"."""
    title: str
    text: str


def record_unit(record: str = "image") -> str:
    """What a record-level epsilon protects, in words, where a record is an "image" or a "person".

    >>> record_unit("person"), record_unit() == RECORD_UNIT
    ('one person of one client', True)
    """
    return RECORD_UNIT.replace("image", record)


def format_epsilon(value: float) -> str:
    """Epsilon as it is, rounded up so that what is read is never below what was computed.

    >>> [format_epsilon(e) for e in (float("inf"), 105_432.1, 27.31, 6.7, 0.5, 0.01234, 0, 1e300)]
    ['inf', '105,433', '27.4', '6.70', '0.50', '0.0124', '0', '1.00e+300']
    """
    if math.isnan(value) or value < 0:
        raise ValueError(f"epsilon must be at least 0, got {value!r}")
    if math.isinf(value):
        return "inf"
    exact = Decimal(repr(float(value)))
    if exact == 0:
        return "0"
    if exact >= 10**12:
        return f"{_up(exact, exact.adjusted() - 2):.2e}"
    most = 2 if exact >= Decimal("0.1") else 2 - exact.adjusted()
    places = 0 if exact >= 100 else 1 if exact >= 10 else most
    return f"{_up(exact, -places):,f}"


def format_floor(value: float) -> str:
    """A lower bound of epsilon, rounded down: three digits.

    >>> [format_floor(e) for e in (0.29961, 12.378, 4567.8, float("inf"))]
    ['0.299', '12.3', '4,560', 'inf']
    """
    if math.isinf(value) or value <= 0:
        return "inf" if value > 0 else "0"
    exact = Decimal(repr(float(value)))
    exponent = min(exact.adjusted() - 2, 3)
    return f"{exact.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_FLOOR):,f}"


def _up(value: Decimal, exponent: int) -> Decimal:
    """Rounded up to a multiple of 10^exponent."""
    return value.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_CEILING)


def format_delta(value: float) -> str:
    """A delta without padding.

    >>> format_delta(1e-5), format_delta(0.001)
    ('1e-5', '0.001')
    """
    return f"{value:g}".replace("e-0", "e-")


def format_bytes(count: float) -> str:
    """Decimal units, three digits.

    >>> [format_bytes(n) for n in (0, 999, 107_599, 1_940_000, 23.4e9)]
    ['0 B', '999 B', '108 kB', '1.94 MB', '23.4 GB']
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    unit = units[0]
    digits = 0 if unit == "B" or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:,.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """Seconds, or minutes and hours where that reads better.

    >>> [format_seconds(s) for s in (0.234, 24.71, 247, 3725)]
    ['0.23 s', '24.7 s', '4 min 07 s', '1 h 02 min']
    """
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def true_alarms(epsilon: float, delta: float, false_alarms: float = FALSE_ALARMS) -> float:
    """How often a test that tells a client's contribution from none can be right: its rate of true alarms.

    Under (epsilon, delta)-differential privacy a test with false-alarm rate a has a rate of true alarms of at
    most min(e^eps a + delta, 1 - e^-eps (1 - a - delta)) (Kairouz, Oh, Viswanath 2015, Theorem 2.1, both
    directions).

    >>> true_alarms(0.0, 0.0), true_alarms(float("inf"), 1e-5)
    (0.01, 1.0)
    >>> round(true_alarms(1.0, 1e-5), 4)
    0.0272
    """
    up = math.exp(epsilon) * false_alarms + delta if epsilon < 700 else math.inf
    down = 1 - math.exp(-epsilon) * (1 - false_alarms - delta)
    return min(1.0, up, down)


def verdict(
    epsilon: float, delta: float, *, certified: float | None = None, moments_opened: bool = False
) -> Verdict:
    """What a client-level epsilon promises against an observer of the sums.

    certified        the largest true-positive rate at `FALSE_ALARMS` that all releases of a ledger leave,
                     where it is known; it is never above what (epsilon, delta) alone give
    moments_opened   whether a record-level release over all clients was opened, which carries noise for
                     single images and not for whole clients

    >>> verdict(1e5, 1e-5).title
    'ε(SUM) = 100,000 is no meaningful guarantee by itself.'
    >>> verdict(0.5, 1e-5).text  # doctest: +ELLIPSIS
    'From ε and δ alone, an attacker with a 1% false-positive rate detects at most 1.7% of the clients ...'
    >>> verdict(2.0, 1e-5, certified=0.0369).text  # doctest: +ELLIPSIS
    'By all that ... at most 3.7% of the clients that ... into the sums; from ε and δ alone it would be 7.4%.'
    """
    if math.isinf(epsilon) and moments_opened:
        return Verdict(
            "none",
            "ε(SUM) = inf: nothing is proved for a whole client.",
            "The opened moments carry noise that is made for one image. All images of a client together move "
            "them by so much more that no bound on what they tell about a client is worth stating.",
        )
    if math.isinf(epsilon):
        return Verdict(
            "none",
            "ε(SUM) = inf: there is no guarantee.",
            "The masks carry no noise, so no differential privacy holds: one opened sum can settle with "
            "certainty what a client contributed.",
        )
    whom = "clients that put anything of their own into the sums"
    return _verdict(f"ε(SUM) = {format_epsilon(epsilon)}", epsilon, delta, certified, whom)


def image_verdict(
    epsilon: float, delta: float, record: str = "image", *, certified: float | None = None
) -> Verdict:
    """What a record-level epsilon promises for one image of one client, or for one person; see `verdict`.

    >>> image_verdict(2.0, 1e-5).title
    'ε(one image) = 2.00 is a limited guarantee.'
    >>> image_verdict(2.0, 1e-5).text  # doctest: +ELLIPSIS
    'From ε and δ alone, an attacker with a 1% false-positive rate detects at most 7.4% of the images ...'
    >>> image_verdict(2.0, 1e-5, "person").title
    'ε(one person) = 2.00 is a limited guarantee.'
    """
    figure = f"ε(one {record}) = {format_epsilon(epsilon)}"
    if math.isinf(epsilon):
        return Verdict(
            "none",
            f"{figure}: there is no guarantee.",
            "The release carries too little noise for any bound.",
        )
    return _verdict(figure, epsilon, delta, certified, f"{record}s that a client really had")


def a_record(record: str) -> str:
    """ "image" or "person" with its article.

    >>> a_record("image"), a_record("person")
    ('an image', 'a person')
    """
    return "an image" if record == "image" else f"a {record}"


def what_is_revealed(
    epsilon: float, delta: float, *, record: str | None = None, certified: float | None = None
) -> str:
    """What taking part can reveal, or one record, for who knows no epsilon; the number is the verdict's.

    record      "image" or "person"; None where all that a client contributes is protected
    certified   as in `verdict`

    >>> what_is_revealed(2.0, 1e-5, certified=0.0369)  # doctest: +ELLIPSIS
    'What taking part can reveal: ... nothing of their own finds at most 3.7 in 100 that did.'
    >>> what_is_revealed(2.0, 1e-5, record="image")  # doctest: +ELLIPSIS
    'What one image can reveal: ... 1 in 100 images that no client had finds at most 7.4 in 100 that one had.'
    >>> what_is_revealed(23_617.0, 1e-5)
    'What taking part can reveal: anything, as far as this bound goes.'
    """
    percent = _percent(true_alarms(epsilon, delta) if certified is None else certified)
    subject = "taking part" if record is None else f"one {record}"
    if percent >= 100:
        return f"What {subject} can reveal: anything, as far as this bound goes."
    others, right = (
        ("clients that put in nothing of their own", "that did")
        if record is None
        else (f"{record}s that no client had", "that one had")
    )
    return (
        f"What {subject} can reveal: from all that was opened, an attacker who wrongly suspects "
        f"{100 * FALSE_ALARMS:g} in 100 {others} finds at most {percent:g} in 100 {right}."
    )


def _percent(rate: float) -> float:
    """Rounded up to a tenth of a percent."""
    return math.ceil(1000 * rate - 1e-9) / 10


def _verdict(figure: str, epsilon: float, delta: float, certified: float | None, whom: str) -> Verdict:
    alone = _percent(true_alarms(epsilon, delta))
    percent = alone if certified is None else _percent(certified)
    source = "From ε and δ alone" if certified is None else "By all that the ledger certifies"
    text = (
        f"{source}, an attacker with a {FALSE_ALARMS:.0%} false-positive rate detects at most "
        f"{percent:g}% of the {whom}"
    )
    text += f"; from ε and δ alone it would be {alone:g}%." if percent < alone else "."
    if percent >= 100:
        text += (
            " That rules nothing out: the figure is shown because it is what can be proved, not because it "
            "protects."
        )
    if epsilon > LIMITED:
        return Verdict("weak", f"{figure} is no meaningful guarantee by itself.", text)
    if epsilon > STRONG:
        return Verdict("limited", f"{figure} is a limited guarantee.", text)
    return Verdict("strong", f"{figure} is a strong guarantee.", text)
