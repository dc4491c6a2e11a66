"""The sections of a configuration: what can be set, what it means, and what each value must be.

The text below a field is its meaning, which `prism-secure config --explain` prints.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from prism_secure.config.plugged import is_reference
from prism_secure.config.toml_words import written

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
ShareAboveZero = Annotated[float, Meta(gt=0, le=1)]
Epsilon = Annotated[float, Meta(gt=0, extra={"inf": True})]
Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
"""What numbers may be; an editor learns it from `prism-secure config --schema`. Those without an upper limit
are finite, unless `inf` says otherwise."""

Source = Literal["fashion_mnist_12k", "fashion_mnist", "mnist", "cifar10", "celeba", "idx", "images"]
PERSON_IN: dict[str, tuple[str, ...]] = {"images": ("folder", "file"), "idx": ("file",), "celeba": ("file",)}
"""What `data.person` may be, by source: where that says whose an image is."""
PartitionScheme = Literal["iid", "shards", "dirichlet"]
WeightLaw = Literal["signed_constant", "kaiming_normal", "wide_normal", "signed_e"]
MaskMode = Literal["hard", "bernoulli", "annealed", "topk"]
InitialLaw = Literal["normal", "uniform"]
Optimizer = Literal["adam", "root"]
Averaging = Literal["ema", "faithful"]
AggregationRule = Literal[
    "fixed", "schedule", "sampled", "expected", "coupled", "cosine", "kalman", "kalman_global"
]
Behaviour = Literal["train", "measure"]
KEEP_TO_THE_RELEASE = frozenset({"train"})
"""Behaviours whose clients know of their images what was released of them before round 1 and no more
(`prism_secure.rounds.moments`), so that rounds add nothing to `privacy.record_epsilon`. Beside any other,
built in or not, it must be inf."""
Network = Literal["resnet"]
Extractor = Literal["efficientnet_lite0", "efficientnet_lite0_pooled", "fourier", "vgg19_bn"]
MetricNetwork = Literal["classifier", "efficientnet_lite0", "inception_v3", "inception_fid"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        for name, meta in _ranges(type(self)):
            value = getattr(self, name)
            word = value is None or isinstance(value, str)  # of a few, which msgspec holds it to
            self._require(name, word or _within(value, meta), in_words(meta))

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise ValueError(f"{name} must be {expected}, got {written(getattr(self, name))}")

    def _require_named(self, name: str, offered: Any) -> None:
        """One of the words `offered`, or a reference to something of the user's own."""
        words, value = get_args(offered), getattr(self, name)
        expected = f"{' | '.join(map(repr, words))} | 'package.module:name' of your own"
        self._require(name, value in words or is_reference(value), expected)


@functools.cache
def _ranges(kind: type[Section]) -> tuple[tuple[str, Meta], ...]:
    """The range of each field that has one, by its annotation."""
    found = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for part in (hint, *get_args(hint)):
            found += [(name, meta) for meta in getattr(part, "__metadata__", ()) if isinstance(meta, Meta)]
    return tuple(found)


def _within(value: float, meta: Meta) -> bool:
    low = (meta.ge is None or value >= meta.ge) and (meta.gt is None or value > meta.gt)
    high = (meta.le is None or value <= meta.le) and (meta.lt is None or value < meta.lt)
    endless = meta.le is None and meta.lt is None and not (meta.extra or {}).get("inf")
    return low and high and not (endless and value == math.inf)


def in_words(meta: Meta) -> str:
    """A range, as messages and help have it.

    >>> [in_words(Meta(**how)) for how in ({"ge": 1}, {"ge": 1, "le": 4096}, {"ge": 0, "lt": 0.5}, {"gt": 0})]
    ['at least 1', 'from 1 to 4096', 'in [0, 0.5)', 'a positive number']
    """
    extra = meta.extra or {}
    if "must" in extra:
        return str(extra["must"])
    low, high = (meta.ge if meta.gt is None else meta.gt), (meta.le if meta.lt is None else meta.lt)
    if high is None:
        words = "a positive number" if meta.gt == 0 else f"at least {low:g}"
        return f"{words} or inf" if extra.get("inf") else words
    if meta.gt is None and meta.lt is None and high > 1:
        return f"from {low} to {high}"
    return f"in {'[' if meta.gt is None else '('}{low:g}, {high:g}{']' if meta.lt is None else ')'}"


class Data(Section, frozen=True):
    """Which images, and how the clients share them."""

    source: Source = "fashion_mnist_12k"
    """Where the images come from; the first is bundled, the others lie in `folder`."""
    folder: str | None = None
    """Where the files of a source that is not bundled lie. Of `images`: a folder for each class, or `train`
    and `test` with these; without `test` every sixth image of a class is held out."""
    download: bool = False
    """Whether torchvision may download a missing data set into `folder`."""
    skip_bad: bool = False
    """With `images` and `celeba`: whether pictures that cannot be read are skipped, with their names on the
    console and in the run folder's `clients`, and only their number in the report."""
    channels: int = 0
    """1 makes all images grey, 3 colour; 0 is as found: of `images`, colour if a single one is."""
    attribute: str = "Male"
    """With `celeba`: the attribute that is the label, so that partitions and conditions go by it."""
    person: Literal["folder", "file"] | None = None
    """Whose an image is, so that a person with several images is protected as a whole: "folder" with `images`
    (class/person/picture.png), "file" with `images` (`person_file`), `idx` (`train-persons.txt`, a line an
    image) and `celeba` (`identity_CelebA.txt`). The same name is the same person, in all classes. All images
    of a person are with one client, or held out. none: each image is for itself. Only with
    `federation.behaviour = "measure"`."""
    person_file: str = "persons.csv"
    """With `images` and person = "file": the table in `folder` that says whose each picture is, CSV or (.tsv)
    TSV, with the columns `file` (class/picture.png, as it lies in `folder`) and `person` in its header."""
    partition: PartitionScheme = "iid"
    """How the clients share the images: alike, a few runs of sorted ones each, or in drawn proportions."""
    shards_per_client: Count = 4
    """With `shards`: how many runs of images sorted by label each client gets."""
    dirichlet_alpha: Positive = 0.5
    """With `dirichlet`: the concentration; small values give each client few classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bundled = self.source == "fashion_mnist_12k"
        if bundled:
            expected = f'none with source = {self.source!r}, which is bundled (your own pictures: "images")'
            self._require("folder", self.folder is None, expected)
        else:
            self._require("folder", self.folder is not None, f"the folder with the files of {self.source!r}")
        self._require(
            "person",
            self.person in (None, *PERSON_IN.get(self.source, ())),
            'none, or "folder" with source = "images", "file" with "images", "idx" and "celeba": others do '
            "not say whose an image is",
        )
        self._require(
            "person_file",
            re.fullmatch(r"[^/\\]+\.[ct]sv", self.person_file) is not None,
            "the name of a .csv or .tsv file in data.folder",
        )
        self._require(
            "person_file",
            self.person_file == "persons.csv" or (self.source, self.person) == ("images", "file"),
            'left at "persons.csv" without source = "images" and person = "file", which alone read it',
        )
        self._require("channels", self.channels in (0, 1, 3), "1 (grey), 3 (colour) or 0 (as found)")


class Federation(Section, frozen=True):
    """Who takes part, for how long. `seed` is public: weights, latents and partition come from it."""

    clients: Annotated[
        int, Meta(ge=3, le=10_000, extra={"must": "from 3 (the secure sum's least) to 10,000"})
    ] = 10
    """How many there are, 3 or more."""
    client_fraction: ShareAboveZero = 1.0
    """Share of them that a round invites: those with the fewest rounds so far, in a public random order."""
    rounds: Count = 10
    """How many sums are opened; each is charged."""
    behaviour: str = "train"
    """What clients do in a round: "train" their masks, "measure" and answer in few public directions (see
    [measured]), or "package.module:name", which names a behaviour of your own."""
    local_steps: Count = 32
    """Steps of a client in a round: the same for all, whatever they hold."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1, extra={"must": "from 0 to 2^63 - 1"})] = 0
    """Public; the clients' coins never come from it."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    """Processes that train clients side by side. The result does not depend on it."""
    device: str = "cpu"
    """Where clients train, or in measured rounds the server: cpu, cuda, or cuda:1 and so on. Features of real
    images, metrics and the deployed network are computed on the CPU all the same. On a graphics card results
    repeat up to rounding only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_named("behaviour", Behaviour)
        known = re.fullmatch(r"cpu|cuda(:\d+)?", self.device) is not None
        self._require("device", known, "cpu, cuda, or cuda:0, cuda:1 and so on")


class Model(Section, frozen=True):
    """The generator, frozen at random: PRISM's ResNet, or one of your own."""

    network: str = "resnet"
    """PRISM's ResNet ("resnet"), or "package.module:name", a network of your own, which is given the other
    settings here and reads of them what it likes."""
    width: Annotated[int, Meta(ge=1, le=1024)] = 16
    """Channels of the last block (ngf)."""
    max_channels: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    """Most channels of a block: each halving of the side doubles them up to this; 0 for no limit."""
    latent: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Length of the noise vector that becomes an image."""
    image_size: Annotated[int, Meta(ge=8, le=256, extra={"must": "a power of two from 8 to 256"})] = 32
    """Side of the images, a power of two; data of another size are resized."""
    conditional: bool = True
    """Whether the label is an input of the generator."""
    weights: WeightLaw = "signed_constant"
    """The frozen weights: signs times sqrt(2/fan_in), normal with that deviation, normal with deviation 10,
    or signs times e/sqrt(fan_in)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_named("network", Network)
        power = self.image_size & (self.image_size - 1) == 0
        self._require("image_size", power, "a power of two from 8 to 256")


class Mask(Section, frozen=True):
    """How scores become the deployed mask, and the one that is trained (uploads are always drawn)."""

    mode: MaskMode = "hard"
    """Keep weights with a positive score (hard); each with probability theta (bernoulli); from bernoulli to
    hard over the rounds (annealed); or the `density` highest (topk)."""
    temperature: Positive = 0.1
    """tau in theta = sigmoid(score / tau)."""
    density: ShareAboveZero = 0.5
    """With `topk`: the share of the weights that is kept."""
    initial: InitialLaw = "normal"
    """How the first log-odds of theta are drawn: normal with deviation `spread`, or uniform within it."""
    spread: Positive = 1.0
    """Size of the first log-odds."""
    score_layers: ShareBelowOne = 0.0
    """Share of the layers, the last ones, that send their log-odds instead of bits (PRISM-alpha). They leave
    without noise, so `privacy.flip` must be 0."""
    score_limit: Positive = 8.0
    """With `score_layers`: the size that log-odds are clipped to."""
    score_bits: Annotated[int, Meta(ge=2, le=32)] = 16
    """With `score_layers`: bits of the fixed-point numbers that log-odds are sent as."""


class Features(Section, frozen=True):
    """Frozen public features whose means, and variances if wanted, the generator matches."""

    extractors: tuple[str, ...] = ("efficientnet_lite0", "fourier")
    """Their features side by side: of an ImageNet network ("efficientnet_lite0", or
    "efficientnet_lite0_pooled": 192 averages over the whole image), random ones of pixels ("fourier"), of the
    paper's VGG19-BN ("vgg19_bn"), or of "package.module:name", a network of your own."""
    bounded: bool = True
    """Take each feature's unit from public images, shorten an image's features to norm 1, and weigh all
    alike: what one noisy release for `record_epsilon` needs. Otherwise each client's variances give units."""
    vgg_layers: tuple[int, ...] = ()
    """With `vgg19_bn`: which of its 16 ReLU maps, counted from 1 at the image; an empty list: all."""
    products: Annotated[int, Meta(ge=0, le=512, extra={"must": "from 0 to 512"})] = 0
    """r: match the means of the products of so many leading coordinates, r(r+1)/2 of them, beside those of
    bounded features, and so how images of a class vary. One image's features stay within norm 1: epsilon is
    the same, the noise on a feature is √2 times as much, and uploads grow. 0: means of features only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        words, names = get_args(Extractor), self.extractors
        self._require(
            "extractors",
            0 < len(names) == len(set(names)) and all(name in words or is_reference(name) for name in names),
            f"one or more of {' | '.join(map(repr, words))} | 'package.module:name' of your own, each once",
        )
        named = self.vgg_layers
        ok = len(named) == len(set(named)) and all(1 <= layer <= 16 for layer in named)
        self._require("vgg_layers", ok, "different numbers from 1 to 16")


class Training(Section, frozen=True):
    """Steps of local training: of each client, or of the server in measured rounds."""

    batch_size: Annotated[int, Meta(ge=2)] = 40
    """Generated images a step; a multiple of the classes."""
    optimizer: Optimizer = "adam"
    """How a gradient becomes a step: by Adam, with moments that a client keeps, or as its signed square root,
    with none; "root" is for cohorts of very many clients that take a step or two a round."""
    learning_rate: Positive = 0.03
    """Size of a step on the scores."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's decay rates, of the scores and of the tracked differences of `averaging = "faithful"`."""
    averaging: Averaging = "ema"
    """How a batch's noise is averaged away: moving averages of the generated moments, or the paper's: the
    differences of moments are tracked by Adam, and the generator descends on their inner product."""
    tracking_rate: Positive = 1e-5
    """With `faithful`: size of Adam's step on the tracked differences."""
    latent_groups: CountOrZero = 0
    """Deal the clients to so many groups whose members draw the same latents in a round: a simulation makes
    the images of a group's first step once and, where all train towards one sum of moments, trains once for
    the group. 0: each client draws its own."""
    fill_clip: bool = False
    """Lengthen or shorten each client's move to exactly `privacy.clip`: only its direction counts."""
    variance_weight: NotNegative = 0.0
    """Weight of matching the features' standard deviations, beside their means; 0: means only."""
    end_steps: CountOrZero = 0
    """Steps that the server makes by itself after the last round, towards the moments that opened before the
    first: it needs `privacy.record_release = "summed"`, and costs no epsilon."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)")


class Measured(Section, frozen=True):
    """Measured rounds, with `federation.behaviour = "measure"`: the server names directions in feature space,
    clients answer in numbers, and their noisy bits carry the answers. Epsilon of a client and of an image
    come from the same bits and grow by the round. `privacy.flip` is the edge of the box that bit
    probabilities stay in: the larger it is, the more bits a move needs for its room.
    """

    unit: Literal["client", "image"] = "client"
    """Whom `epsilon` is for: all that a client has (zeroed out), or one image (replaced by any other), which
    is one person, with all images, where `data.person` is set. The other unit's epsilon is told beside it."""
    epsilon: Epsilon = 2.0
    """Of all rounds together for that unit, against an observer of the sums: bits move as far as it
    allows. inf: they move as far as `radius` says."""
    radius: Positive | None = None
    """With `epsilon = inf`: C, how far a client's bits may move in the largest round (L2, probabilities)."""
    first_round: Positive = 0.3
    """C of round 1, as a share of what the others' rule gives: it only has to find where the moments are."""
    growth: Positive = 1.0
    """C of each later round over that of the round before it."""
    directions: Annotated[int, Meta(ge=1, le=4096)] = 128
    """k, how many numbers a client answers in a round. With `rows` times classes of them all is asked in each
    round; what is beyond that asks nothing."""
    coordinates: Annotated[
        int, Meta(ge=0, le=1 << 20, extra={"must": "a power of two up to 1048576, or 0"})
    ] = 8192
    """m, how many bits carry them: a power of two, at least k. 0: the most that the mask has room for; more
    bits cost no accuracy, and let bits move further before they meet their limits f and 1 - f."""
    record_clip: Annotated[float, Meta(ge=2**-20, le=2**20, extra={"must": "from 2^-20 to 2^20"})] | None = (
        None
    )
    """c / A, the longest answer of one image in units of the longest of a client. none: sqrt(N) with unit =
    "client", which hardly shortens answers of unlike images, and 1 with unit = "image". With `data.person`
    the longest of one person: N / sqrt(P) and N / P, where a client has P persons on average."""
    margin: Annotated[float, Meta(ge=0.01, le=100)] = 0.9
    """A, in each round, over the length that the public model expects of answers. Shorter ones get more of
    the bits' move; longer ones are cut, and what is cut off is asked again around a better mean."""
    concentration: ShareAboveZero | None = None
    """Sum of squares of a client's class shares that is expected, for A; public, and the same for all. none:
    by `data.partition`; clients that hold their own data and few classes each need it: 0.55 for two."""
    records: Annotated[int, Meta(ge=0, le=1 << 40, extra={"must": "at least 0"})] = 0
    """N, by which each client divides the sum of its images' answers: public, and the same for all, whatever
    a client has. 0: how many images a client has on average, by the public partition."""
    rows: Annotated[int, Meta(ge=0, le=2000, extra={"must": "from 1 to 2000, or 0"})] = 600
    """How many principal directions of public images' features the server may ask along. What lies outside
    them is never learned; more of them spread the same budget thinner. 0: by a public rule, as many as
    are expected to leave the least unknown where noise is at most half of that."""
    prior: Annotated[float, Meta(gt=0, le=100, extra={"must": "a positive number up to 100"})] = 0.7
    """Prior variance of each class's mean, and of what all classes share, in units of half the public images'
    variance along each of the rows."""
    steps: Count = 60
    """Steps of the server after each round: they cost no privacy. Their size and batch are those of
    [training]."""
    end_steps: CountOrZero = 500
    """Further steps after the last round."""
    smoothing: ShareBelowOne = 0.98
    """Share of the past in the running average of the server's scores, which is what is deployed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        m = self.coordinates
        self._require("coordinates", m & (m - 1) == 0, "a power of two up to 1048576, or 0")
        self._require(
            "coordinates", not m or m >= self.directions, f"at least directions = {self.directions}"
        )


class Aggregation(Section, frozen=True):
    """How the server moves theta towards the mean of the masks: `prism_secure.learning.aggregation`."""

    rule: str = "schedule"
    """What lambda, the step towards the round's mean mask, is made of: fixed, schedule, sampled, expected,
    coupled, cosine, kalman, kalman_global, or a function of your own as "package.module:name"."""
    space: Literal["theta", "logit"] = "theta"
    """Blend probabilities or log-odds."""
    lambda_start: Share = 1.0
    """lambda of `fixed`; of `schedule` and the `kalman` rules, their factor at first."""
    lambda_end: Share = 0.2
    """Lambda of the last round; `fixed` ignores it."""
    hold: Share = 0.6
    """Share of the rounds before it starts to fall."""
    floor: Share = 0.05
    """Least gain of the `kalman` rules, before lambda."""
    momentum: ShareBelowOne = 0.0
    """Share of the last round's move that is made again."""
    shrink: Share = 0.0
    """How far the debiased mean is drawn towards a half, from 0 to 1: less noise, and a bias. Twice
    `privacy.flip` undoes the debiasing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_named("rule", AggregationRule)


class Privacy(Section, frozen=True):
    """The noise on what leaves a client, the limit of its influence, and the delta that both epsilons are
    stated at."""

    flip: Annotated[float, Meta(ge=0, lt=0.5)] = 0.1
    """Probability f that a bit is replaced by its opposite; 0 means no noise and epsilon = inf. In measured
    rounds bit probabilities start at 1/2 and stay in [f, 1 - f]."""
    clip: Positive | None = None
    """L2 radius C of a client's influence on its bit probabilities; none: unclipped."""
    clip_space: Literal["probability", "score"] = "probability"
    """Whether `clip` bounds the move of bit probabilities or of scores (in units of tau)."""
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    """Of every epsilon; well below 1/clients and 1/images of a client."""
    record_epsilon: Epsilon = 2.0
    """Epsilon for one image of one client, over all rounds together: each client's feature moments are
    released once, with the noise that this needs, and are all it trains from. inf: no such claim, exact
    moments."""
    record_release: Literal["client", "summed"] = "summed"
    """With `record_epsilon`: "client": each client draws noise of its own and keeps the release at home;
    "summed": one release over all clients opens in a secure sum, with less noise, and everybody trains from
    it."""
    record_cohort: CountOrZero = 0
    """With "summed": so many honest clients' noise is enough. 1: each adds all of it, so that nobody need be
    trusted with single images. 0: as many as the secure sum guarantees, min_survivors - colluders."""
    record_store: str | None = None
    """With `record_epsilon`: a private folder where releases are kept and found again, so that several runs
    over the same images make one release and not one each. None: in the run folder."""
    colluders: CountOrZero = 0
    """Clients that epsilon(SUM) assumes to side with the server."""
    theta_min: Annotated[float, Meta(gt=0, lt=0.5)] = 0.01
    """theta is kept in [theta_min, 1 - theta_min]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unclipped = self.clip is None
        self._require(
            "clip_space", not (unclipped and self.clip_space == "score"), "'probability' without a clip"
        )


class SecureSum(Section, frozen=True):
    """The secure sum's parameters, as the clients' policies enforce them."""

    mode: Literal["active", "semi_honest"] = "active"
    """Against a server that deviates at will, or against one that follows the protocol. Above 200 clients
    both run on sparse graphs: active, clients choose their neighbours, and epsilon counts on the cohort which
    that guarantees (with `min_survivors` below all clients, fewer than min_survivors - colluders)."""
    threshold: Annotated[int, Meta(ge=2)] | None = None
    """Shares needed to open; none: floor(2n/3) + 1 (active), floor(n/2) + 1 (semi-honest), or more where
    `colluders` ask for it."""
    min_survivors: Annotated[int, Meta(ge=2)] | None = None
    """The least number of clients whose sum may be opened; none: all clients."""
    dropouts: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """The share of a round's clients that `prism-secure run` lets drop out when their uploads are due: others
    each round, drawn from federation.seed. They have answered, and pay; `min_survivors` must allow for it."""
    suite: Literal["x25519", "x25519+ml-kem-768"] = "x25519"
    """How clients agree on keys: `x25519+ml-kem-768` keeps recorded sessions closed when X25519 falls. A
    client's policy may demand it. It needs a `cryptography` that has ML-KEM, everywhere."""
    simulate: bool = False
    """Whether votes are added up in the clear instead: the same counts and model, and the sizes that messages
    would have had, without keys. For sweeps; ledger, report and card say that the secure sum was not run."""


class Budget(Section, frozen=True):
    """A limit that is checked before it would be passed."""

    epsilon: Epsilon | None = None
    """Plan no more rounds than keep epsilon(SUM, ZERO_OUT) within this."""
    image_epsilon: Epsilon | None = None
    """With measured rounds: no more than keep epsilon of one image, or person, replaced, against an
    observer of the sums, within this."""


class Metrics(Section, frozen=True):
    """What is measured on held-out images, from the one mask that would be deployed."""

    every: Count = 1
    """Evaluate after each so many rounds, and after the last."""
    samples: Annotated[int, Meta(ge=200)] = 2000
    """Generated images that are compared with the held-out ones."""
    features: str = "classifier"
    """The network that compares them; figures of different ones do not compare. "classifier" ships with the
    package, and knows clothes; "efficientnet_lite0" needs no download either, and is for other images:
    averages of an ImageNet network over the whole image. "inception_fid" is that of published FID figures,
    from FID's own weights; "inception_v3" is torchvision's, which is another; "package.module:name" is one of
    your own, trained on public images."""
    utility: (
        Annotated[int, Meta(ge=1, extra={"must": "'end', 'off', or a whole number, at least 1"})]
        | Literal["end", "off"]
    ) = "end"
    """When a small classifier is trained on generated images alone and tested on the held-out ones (gen2real,
    seconds): after the last round, never, or after each so many rounds and the last. It needs labels."""
    held_out: Literal["public", "private"] | None = None
    """What you declare the held-out images to be; no epsilon covers what metrics say about private ones.
    None: private where images come from files of your own (`idx`, `images`), else public."""
    client_images: Literal["public", "private"] | None = None
    """What you declare the clients' images to be: metrics never look at private ones. Where they and the
    held-out ones are public, utility has a ceiling, trained on real images, and copies are looked for. None:
    private where images come from files of your own, else public."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_named("features", MetricNetwork)
