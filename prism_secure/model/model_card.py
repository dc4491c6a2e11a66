"""What a deployed model says about itself: its data, epsilon by unit and view, quality, licences, making.

A card travels inside the model file and as Markdown beside it. It holds figures only; the sentences follow
from them, so a model cannot be described better than its figures. It is what its writer says: the ledger that
it names is what proves epsilon. Whoever reads a card may have it from a stranger: figures that cannot be are
refused, and its words are shown without what could drive a terminal or a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal
from unicodedata import category

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prism_secure.wording import (
    CLIENT_UNIT,
    SEEN,
    Verdict,
    format_bytes,
    format_delta,
    format_epsilon,
    image_verdict,
    record_unit,
    verdict,
)

if TYPE_CHECKING:
    from prism_secure.model.generator import Architecture  # torch

__all__ = [
    "DataCard",
    "Making",
    "ModelCard",
    "Number",
    "Privacy",
    "QualityCard",
    "front_matter",
    "mask_digest",
    "model_words",
    "plain",
    "shown",
]

NOT_STATED = "not stated"
"""By whoever exported the model."""

Number = float | Literal["inf", "nan"]
"""JSON has no number for infinity, and a card must come back from a file as it went in."""
Epsilon = Annotated[float, Meta(ge=0)] | Literal["inf"]
Count = Annotated[int, Meta(ge=0)]
Parties = Annotated[int, Meta(ge=1)]
Hex = Annotated[str, Meta(pattern=r"\A[0-9a-f]*\Z")]

_MARKDOWN = str.maketrans({special: f"\\{special}" for special in "\\`*_[]<>|&~"})


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """SHA-256 of a mask, bool (d,), packed eight bits a byte as in a model file, in hexadecimal."""
    return sha256(np.packbits(mask).tobytes()).hexdigest()


def model_words(architecture: Architecture, seed: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """What a ledger's last line signs of a deployed model: all of it, the mask by its SHA-256."""
    return {"architecture": architecture.as_dict(), "seed": seed, "mask_sha256": mask_digest(mask)}


def plain(text: str) -> str:
    """Text on one line, with a space for every invisible character that may drive a terminal.

    >>> plain("a\\n\\x1b[2Jb\\u202e")
    'a  [2Jb '
    """
    return "".join(" " if category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") else each for each in text)


def shown(text: str) -> str:
    """Text inside a line of Markdown, where it reads as it is and does nothing.

    >>> print(shown("<b>[x](y)"))
    \\<b\\>\\[x\\](y)
    """
    return plain(text).translate(_MARKDOWN)


_LICENCES = frozenset(
    {
        "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0",
        "gpl-3.0", "mit",
    }
)  # fmt: skip
"""Names that model hubs know; any other licence is "other", with its name beside it."""


def front_matter(values: Mapping[str, str | Sequence[str]]) -> str:
    """YAML between two lines of dashes: what model and data hubs read at the top of a card.

    Values are strings, or lists of them, in quotes that nothing in them ends.

    >>> print(front_matter({"license": "MIT", "tags": ["a: b"]}), end="")
    ---
    license: "mit"
    tags: ["a: b"]
    ---
    """
    told = dict(values)
    licence = plain(str(told["license"]))
    known = licence.lower() in _LICENCES
    told["license"] = licence.lower() if known else "unknown" if licence == NOT_STATED else "other"
    if told["license"] == "other":
        told["license_name"] = licence
    lines = [f"{name}: {_yaml(value)}" for name, value in told.items()]
    return "\n".join(["---", *lines, "---", ""])


def _yaml(value: str | Sequence[str]) -> str:
    """Text, or a list of it, in quotes; what Markdown would act on is escaped, should it be taken for that.

    >>> print(_yaml(["a: b", "<b>"]))
    ["a: b", "\\u003cb\\u003e"]
    """
    if not isinstance(value, str):
        return f"[{', '.join(map(_yaml, value))}]"
    escaped = str.maketrans({each: f"\\u{ord(each):04x}" for each in "`*[]<>|&~"})
    return json.dumps(plain(value), ensure_ascii=False).translate(escaped)


class _Part(msgspec.Struct, frozen=True):
    """Fields that a later version adds are passed over."""


class DataCard(_Part, frozen=True, kw_only=True):
    """The images that the clients had."""

    name: str
    """In words."""
    licence: str = NOT_STATED
    classes: tuple[str, ...] = ()
    """What each label is called; none for an unconditional model, or where nobody said."""
    training_images: Count | None = None
    held_out_images: Count | None = None
    clients: Parties
    partition: str


class Privacy(_Part, frozen=True, kw_only=True):
    """Every epsilon that the run's ledger states."""

    delta: Annotated[float, Meta(gt=0, lt=1)]
    sum_zero_out: Epsilon
    sum_replace_one: Epsilon
    upload_zero_out: Epsilon
    upload_replace_one: Epsilon
    cohort: Parties
    """Honest clients that epsilon(SUM) counts on: in every opened sum, or in that of the noisy moments."""
    known_coins: bool = False
    """Whether a test key drew the noise, so that nothing is claimed."""
    sum_not_run: bool = False
    """Whether there was no secure sum, so that epsilon(SUM) is what it would be with one."""
    record: Epsilon | None = None
    """Epsilon for one image over all rounds; None where nothing is claimed."""
    record_of: str = "image"
    """What a record is: an "image", or a "person" with all images of one."""
    record_adjacency: str = ""
    """What is compared, in words."""
    stopped_early: bool = False
    """Whether results ended the run before its plan did: then every epsilon is that of the plan."""
    record_cohort: Count = 0
    """Of a release summed over clients: so many must have been honest; 0 where each kept its own."""
    measured_cohort: Count = 0
    """Of measured rounds, whose bits cost an image something each: so many must have been honest; 0 of a
    release made once."""
    record_weaker: tuple[tuple[str, Epsilon], ...] = ()
    """What is left of `record`, by who else sided with the server."""
    unbounded: tuple[str, ...] = ()
    """Of every epsilon that is infinite: why, and what would have made it finite, in words."""
    ledger_head: Hex
    ledger_key: Hex
    """The writer's Ed25519 public key."""
    ledger_mask: Hex | None = None
    """SHA-256 of the packed mask, where the ledger's last line names it: that of this model."""

    def __post_init__(self) -> None:
        """ValueError where replacing a client costs less than leaving it out, or an upload than a sum."""
        for less, more in (
            ("sum_zero_out", "sum_replace_one"),
            ("upload_zero_out", "upload_replace_one"),
            ("sum_zero_out", "upload_zero_out"),
            ("sum_replace_one", "upload_replace_one"),
        ):
            low, high = float(getattr(self, less)), float(getattr(self, more))
            if high < low * (1 - 1e-9):  # two sums may round differently
                raise ValueError(f"{more} = {high:g} cannot be below {less} = {low:g}")


class QualityCard(_Part, frozen=True, kw_only=True):
    """Quality of the images, on public held-out ones."""

    round: Count
    features: str
    """In words: what the figures are figures of."""
    samples: Count
    fid: Number
    kid: Number
    precision: Number
    recall: Number
    density: Number
    coverage: Number
    label_accuracy: Number | None = None
    sliced_wasserstein: Number | None = None
    gen2real: Number | None = None
    """Accuracy on the held-out images of a classifier trained on generated ones alone."""
    gen2real_ceiling: Number | None = None
    """`gen2real` of a classifier trained on as many real images."""
    warning: str = ""
    """What keeps the figures from meaning what they seem to, in words."""


class Making(_Part, frozen=True, kw_only=True):
    """What it takes to make it again."""

    rounds: Count
    settings: str
    """TOML: what differs from the defaults, without paths."""
    version: str
    commit: str | None = None
    packages: dict[str, str] = {}


class ModelCard(_Part, frozen=True, kw_only=True):
    """All of it.

    >>> card = ModelCard(
    ...     data=DataCard(name="tiles", clients=10, partition="iid"),
    ...     privacy=Privacy(delta=1e-5, sum_zero_out=0.5, sum_replace_one=1.0, upload_zero_out=9.0,
    ...                     upload_replace_one="inf", cohort=10, ledger_head="ab", ledger_key="cd"),
    ...     measured=None, making=Making(rounds=3, settings="", version="1"), weights=100, kept=50)
    >>> print(card.markdown().splitlines()[7])
    # A generator of tiles
    """

    data: DataCard
    privacy: Privacy
    measured: QualityCard | None
    """None where no round was evaluated, or on private images alone."""
    private_quality: bool = False
    """Whether quality was measured on private held-out images, and so left out."""
    making: Making
    licence: str = NOT_STATED
    """Of the model file."""
    weights: Count
    kept: Count
    """How many of them the mask keeps."""
    network: str = ""
    """A network of the makers' own, with the SHA-256 of its source; "" for the built-in one."""
    score_layers: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the layers whose scores the clients sent, instead of votes."""

    def describes(self, mask: NDArray[np.bool_]) -> bool:
        """Whether its figures about the mask are those of this one, bool (d,)."""
        of_mask = (self.weights, self.kept) == (len(mask), int(mask.sum()))
        return of_mask and self.privacy.ledger_mask in (None, mask_digest(mask))

    def markdown(self) -> str:
        """The card for people."""
        parts = [
            self._opening(),
            self._data(),
            self.privacy_section(),
            self.quality_section(),
            self._making(),
        ]
        matter: dict[str, str | Sequence[str]] = {
            "license": self.licence,
            "library_name": "prism-secure",
            "pipeline_tag": "unconditional-image-generation",
            "tags": ["image-generation", "differential-privacy", "federated-learning"],
        }
        return front_matter(matter) + "\n" + "\n\n".join(parts) + "\n"

    def _code_needed(self) -> str:
        if not self.network:
            return ""
        return f" The network is code of its makers' own, which has to be here: {shown(self.network)}."

    def _opening(self) -> str:
        kind = "class-conditional generator" if self.data.classes else "generator"
        share = self.kept / max(1, self.weights)
        return (
            f"# A {kind} of {shown(self.data.name)}\n\n"
            "**This card is what its writer says; nothing in this file proves it.** The end of the section "
            "on privacy says how to check it.\n\n"
            f"Trained by {self.data.clients} clients that never sent an image or a weight: the network was "
            f"frozen at random, the bits that they sent led to which of its {self.weights:,} weights "
            f"are kept ({self.kept:,}, {share:.1%} of them), and {self._opened()}. The file holds "
            "the network's sizes, the seed of its weights and one bit for each; it holds no code."
            f"{self._code_needed()}\n\n"
            f"- Licence of this model: {shown(self.licence)}\n"
            f"- Licence of the data: {shown(self.data.licence)}\n\n"
            "```\n"
            "prism-secure generate --model FILE --count 100 --out grid.png\n"
            "```"
        )

    def _opened(self) -> str:
        """What of the clients everybody saw, in words."""
        votes = (
            "of their bits"
            if self.score_layers == 0
            else ("of their bits and, in the last layers, of their scores")
        )
        moments = "of noisy moments of their images' features, once, and "
        sums = "sums " + (moments if self.privacy.record_cohort else "") + votes
        if self.privacy.sum_not_run:
            return f"{sums} were added up in the clear, without the secure sum"
        return f"only {sums} were opened"

    def _data(self) -> str:
        data = self.data
        lines = [f"- images: {shown(data.name)}, shared by {data.clients} clients ({shown(data.partition)})"]
        if data.training_images is not None:
            lines.append(f"- {data.training_images:,} training images, all clients' together")
        if data.held_out_images is not None:
            lines.append(f"- {data.held_out_images:,} held-out images, for the metrics alone")
        if data.classes:
            named = ", ".join(f"{label} {shown(name)}" for label, name in enumerate(data.classes))
            lines.append(f"- labels: {named}")
        return "## Data\n\n" + "\n".join(lines)

    def privacy_section(self) -> str:
        """Every epsilon, whom it trusts, and how to check it."""
        privacy = self.privacy
        rows = [
            (CLIENT_UNIT, "the server, and whoever has only this model (SUM)", "is left out", "sum_zero_out"),
            (CLIENT_UNIT, "the same (SUM)", "is replaced by any other", "sum_replace_one"),
            (
                CLIENT_UNIT,
                "an observer of its uploads in the clear (UPLOAD)",
                "is left out",
                "upload_zero_out",
            ),
            (CLIENT_UNIT, "the same (UPLOAD)", "is replaced by any other", "upload_replace_one"),
        ]
        table = [f"| {what} | {whom} | {how} | {_claimed(privacy, key)} |" for what, whom, how, key in rows]
        if privacy.record is not None:
            whom = "anybody (UPLOAD)"
            if (counted := privacy.measured_cohort or privacy.record_cohort) > 1:
                honest = f"while {counted} clients were honest"
                whom = f"the server, and whoever has only this model (SUM), {honest}"
            table.append(
                f"| {record_unit(shown(privacy.record_of))} | {whom} | is replaced by any other | "
                f"{format_epsilon(float(privacy.record))} |"
            )
            table += [
                f"| the same | an observer of {shown(who.removesuffix(SEEN).strip())} in the clear (UPLOAD) "
                f"| is replaced by any other | {format_epsilon(float(left))} |"
                for who, left in privacy.record_weaker
                if who.endswith(SEEN)
            ]
        head = "| what is protected | from whom | worlds compared: it … | ε |\n|---|---|---|---|\n"
        rounds = f"{self.making.rounds} round{'' if self.making.rounds == 1 else 's'}"
        if privacy.stopped_early:
            rounds = f"planned rounds (results ended the run after {rounds}; the figures are the plan's)"
        return (
            f"## Privacy\n\nDifferential privacy at δ = {format_delta(privacy.delta)}, over all {rounds}. "
            "Whoever has the model has less than the server saw, so what holds against the server holds "
            "against them.\n\n" + head + "\n".join(table) + "\n\n" + self._words()
        )

    def _words(self) -> str:
        privacy = self.privacy
        words = []
        if privacy.known_coins:
            words.append(
                "**This model claims no ε: its coins were known.** Its noise was drawn from a test key, so "
                "that whoever knows the key can undo it."
            )
        elif privacy.record is None:
            one = record_unit(shown(privacy.record_of))
            words.append(f"For {one} nothing is claimed beyond what is claimed for its client.")
        else:
            words.append(
                _sentence(image_verdict(float(privacy.record), privacy.delta, shown(privacy.record_of)))
            )
            trust = {
                0: "Each client drew its own noise and trained from its own noisy summary alone.",
                1: "Each client put all of the noise into its share before anything left it.",
            }.get(
                privacy.record_cohort,
                "The clients shared the noise: it holds while "
                f"{privacy.record_cohort} of those in the sum were honest.",
            )
            if privacy.measured_cohort:
                trust = (
                    "It comes from the noise of the same bits as the client's, in every round: it holds "
                    f"while {privacy.measured_cohort} of the clients in each sum were honest."
                )
            fewer = [
                f"{shown(who)} {format_epsilon(float(left))}"
                for who, left in privacy.record_weaker
                if not who.endswith(SEEN)
            ]
            if fewer:
                trust += f" With fewer of them ε is: {', '.join(fewer)}."
            words.append(f"{trust} For one {shown(privacy.record_of)}: {shown(privacy.record_adjacency)}.")
        if not privacy.known_coins:
            opened = privacy.record is not None and privacy.record_cohort > 0
            words.append(
                _sentence(verdict(float(privacy.sum_zero_out), privacy.delta, moments_opened=opened))
            )
            words.extend(f"{shown(text)}." for text in privacy.unbounded)
            honest = privacy.record_cohort or privacy.cohort
            where = "the opened sum of noisy moments" if privacy.record_cohort else "every opened sum"
            if privacy.sum_not_run:
                words.append(
                    "**The secure sum was not run.** ε(SUM) is what it would be with one, on machines of the "
                    "clients' own: the same bits, the same model."
                )
            words.append(
                f"ε(SUM) counts on {honest} honest client{'' if honest == 1 else 's'} in {where}, and on the "
                "secure sum's cryptography. A run on one machine simulates all parties: its owner saw "
                "everything."
            )
        model = (
            " and, in the last line, this model (architecture, seed and SHA-256 of the mask, "
            f"`{privacy.ledger_mask}`)"
            if privacy.ledger_mask
            else ""
        )
        words.append(
            "**How to check it.** These figures, the numbers of clients and rounds"
            f"{model} are said to be in a signed ledger. Ask for that ledger, and ask those who took part, "
            "not whoever gave you this card, for its writer's key; then "
            "`prism-secure ledger verify ledger.jsonl --key KEY --head HEAD` prints what it states. Its head "
            f"is said to be `{privacy.ledger_head}`, the key `{privacy.ledger_key}`. Data, quality, settings "
            "and versions are signed by nobody."
        )
        return "\n\n".join(words)

    def quality_section(self) -> str:
        """The figures on held-out images, where they may be told."""
        found = self.measured
        if found is None and self.private_quality:
            return (
                "## Quality\n\nMeasured on private held-out images. The figures would say something about "
                "those images that no ε covers, so they are not in this card."
            )
        if found is None:
            return "## Quality\n\nNot measured."
        named: dict[str, Number | None] = {
            "recall ↑": found.recall, "coverage ↑": found.coverage, "gen2real ↑": found.gen2real,
            "the same with real images": found.gen2real_ceiling, "FID ↓": found.fid, "KID ↓": found.kid,
            "sliced Wasserstein ↓": found.sliced_wasserstein, "precision ↑": found.precision,
            "density ↑": found.density, "classified as asked ↑": found.label_accuracy,
        }  # fmt: skip
        names = {name: value for name, value in named.items() if value is not None}
        notes = [f"**{shown(found.warning)}.**"] if found.warning else []
        if found.gen2real is not None:
            notes.append(
                "gen2real: accuracy on the held-out images of a classifier that saw generated ones only."
            )
        return (
            f"## Quality\n\nAfter round {found.round}, {found.samples:,} generated images against the "
            f"held-out ones; features: {shown(found.features)}. The held-out images are said to be "
            "public: no ε is about them. The signed ledger has neither these figures nor that word.\n\n"
            f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n"
            f"| {' | '.join(f'{float(value):.3f}' for value in names.values())} |"
            + "".join(f"\n\n{note}" for note in notes)
        )

    def _making(self) -> str:
        making = self.making
        commit = f", commit {shown(making.commit)}" if making.commit else ""
        packages = ", ".join(f"{shown(name)} {shown(version)}" for name, version in making.packages.items())
        settings = ", with the default settings."
        if changed := making.settings.strip():
            # Indented: nothing in a line ends such a block, as it would end a fenced one.
            block = "\n".join(f"    {plain(line)}" for line in changed.split("\n"))
            settings = f". Settings that differ from the defaults, without paths:\n\n{block}"
        return (
            f"## How it was made\n\n`prism-secure run`, version {shown(making.version)}{commit}, "
            f"{making.rounds} rounds{settings}" + (f"\n\nPackages: {packages}." if packages else "")
        )


def _claimed(privacy: Privacy, key: str) -> str:
    value = float(getattr(privacy, key))
    return "none claimed" if privacy.known_coins else format_epsilon(value)


def _sentence(said: Verdict) -> str:
    return f"**{said.title}** {said.text}"


def size_words(file: int, stored: int, weights: int) -> str:
    """One line on what a model file takes, beside the same network in float32.

    >>> size_words(41_000, 38_450, 307_600)
    '41.0 kB: 38.5 kB of mask (1.000 bits a weight), 2.55 kB of card and sizes; in float32 1.23 MB'
    """
    return (
        f"{format_bytes(file)}: {format_bytes(stored)} of mask ({8 * stored / weights:.3f} bits a weight), "
        f"{format_bytes(file - stored)} of card and sizes; in float32 {format_bytes(4 * weights)}"
    )
