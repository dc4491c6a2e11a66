from __future__ import annotations

import dataclasses
import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_privacy import Accountant, MaskRelease, MomentRelease
from prism_privacy.ledger import Ledger
from prism_privacy.ledger.entry import RecordGuarantee, Spent
from prism_privacy.ledger.key import LedgerKey
from prism_privacy.units import Adjacency, View
from prism_secure import wording
from prism_secure.accounting.epsilons import AFTER_MOMENTS, CELLS
from prism_secure.config import load_config
from prism_secure.errors import RunFolderError
from prism_secure.quality.samples import encode_png, sample_grid
from prism_secure.reporting.plots import Curve, curves_plot
from prism_secure.reporting.report import write_report
from prism_secure.run_folder.history import read_history
from prism_secure.run_folder.records import encode

from . import fake_run

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(html.parser.HTMLParser):
    """What a browser would find: ids, references, words; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: set[str] = set()
        self.loads: list[str] = []
        self.images = 0
        self.heard: list[str] = []
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self._attribute(tag, name, value or "")
        if tag == "img":
            self.images += 1
            assert dict(attrs).get("alt"), "an image without words"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self._attribute(tag, name, value or "")

    def _attribute(self, tag: str, name: str, value: str) -> None:
        assert not name.startswith("on"), f"a script in {tag} {name}"
        if name == "id":
            self.ids.append(value)
        elif name in ("aria-labelledby", "headers"):
            self.refers.update(value.split())
        elif name == "href" and value.startswith("#"):
            self.refers.add(value[1:])
        elif name in ("src", "href", "srcset", "data", "action", "poster"):
            self.loads.append(value)
        self.refers.update(re.findall(r"url\(#([^)]+)\)", value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.heard.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.heard).split())


def page_of(folder: Path) -> Page:
    return Page(write_report(folder))


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(fake_run.make_run(tmp_path_factory.mktemp("default")))


def test_the_page_needs_nothing_but_itself(default: Page) -> None:
    assert all(load.startswith("data:") for load in default.loads)
    assert "script" not in default.source.lower().replace("description", "")
    own = re.sub(r"data:image/png;base64,[\w+/=]+", "", default.source)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", own)
    assert "default-src 'none'" in default.source
    assert len(default.source.encode()) < 3_000_000


def test_every_reference_of_the_page_has_one_target(default: Page) -> None:
    assert len(default.ids) == len(set(default.ids))
    assert default.refers <= set(default.ids)


def test_the_page_says_what_was_trained_what_left_and_what_it_cost(default: Page) -> None:
    for words in (
        "A class-conditional generator of Fashion-MNIST, from the masks of 10 clients",
        "finished, 12 rounds",
        "242,000 bits , each bit flipped with probability 0.1".replace(" ,", ","),
        "No image, label, gradient, score or weight left a client.",
        "is no meaningful guarantee by itself",
        "It does not make a sum of 10 clients private.",
        "One image of one client not claimed: covered only as part of its client",
        "2,000 generated images against 2,000 held-out images that no client trained on",
        "The held-out images are declared public: the metrics are outside ε.",
        "prism-secure run --out runs/first",
        "12 entries, each signed and chained",
    ):
        assert words in default.text
    config = load_config()
    final = fake_run.record_of(config, 12)
    assert final.quality is not None
    assert f"FID of {final.quality.fid:.1f}" in default.text
    assert wording.format_epsilon(final.epsilon.sum_zero_out) in default.text
    assert wording.format_epsilon(final.epsilon.upload_zero_out) in default.text


def test_wire_figures_follow_from_their_definitions(default: Page) -> None:
    for words in (
        "This run’s masked upload measured 3.56 108 kB 1.00",
        "log₂(10+1) computed 3.46 105 kB 0.97",
        "computed 64.00 1.94 MB 17.99",
        "computed – 968 kB 9.00",
        "What a client receives: θ, messages of the secure sum measured – 971 kB 9.03",
        "a client sent 110 kB and received 971 kB a round",
    ):
        assert words in default.text


def test_ten_named_rows_and_their_past_are_shown(default: Page) -> None:
    assert all(name in default.text for name in fake_run.NAMES)
    assert default.images == 10 + 8
    assert "Round 1 Round 3" in default.text


def test_settings_of_the_recipe_are_muted_and_changes_stand_out_with_its_value(tmp_path: Path) -> None:
    source = page_of(fake_run.make_run(tmp_path, ["privacy.clip=2.5", "federation.rounds=2"])).source
    changed = re.findall(r'<tr class="changed"><th scope="row">(\w+)</th><td class="n">(.*?)</td>', source)
    assert {key: text for key, text in changed if not key.startswith("record_")} == {
        "rounds": "2<small>one-shot: 1</small>",
        "end_steps": "0<small>one-shot: 4000</small>",
        "clip": "2.5<small>one-shot: unclipped</small>",
    }


def test_without_noise_epsilon_is_infinite_and_said_to_promise_nothing(tmp_path: Path) -> None:
    page = page_of(fake_run.make_run(tmp_path, ["privacy.flip=0"]))
    assert "ε(SUM) = inf: there is no guarantee." in page.text
    assert "flipped with probability" not in page.text
    assert "∞" in page.text
    assert "ε = ∞ is none" in page.text


def test_a_small_epsilon_is_called_what_it_is(tmp_path: Path) -> None:
    page = page_of(
        fake_run.make_run(tmp_path, ["privacy.clip=0.5", "privacy.flip=0.25"], rounds=2, done=False)
    )
    assert re.search(r"ε\(SUM\) = 0\.\d+ is a strong guarantee", page.text)
    assert "Dashed: it is replaced by any other." in page.text
    assert "ε(SUM) replaced" in page.text
    assert "detects at most 1.4% of the clients" in page.text


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path) -> None:
    text = page_of(fake_run.make_run(tmp_path, rounds=5, done=False)).text
    assert "unfinished: round 5 of 12" in text
    assert "what was promised beforehand is the figure for all planned rounds: ε(SUM) = 20,499" in text


def test_a_run_without_an_evaluated_round_has_a_page(tmp_path: Path) -> None:
    page = page_of(fake_run.make_run(tmp_path, rounds=1, every=5, done=False))
    assert "No round has been evaluated yet." in page.text
    assert page.images == 0


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    page = page_of(fake_run.make_run(tmp_path, rounds=0, ledger=False, done=False))
    assert "No round is finished yet" in page.text
    assert page.refers <= set(page.ids)


@pytest.mark.parametrize(("lost", "shown"), [(1, True), (2, False)])
def test_rounds_that_opened_nothing_are_left_out_of_what_a_round_sends(
    tmp_path: Path, lost: int, shown: bool
) -> None:
    folder = fake_run.make_run(tmp_path, rounds=2, done=False, images=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    nothing = {"survivors": 0, "uplink_bytes": 0, "bits_per_parameter": 0.0, "step": 0.0, "quality": None}
    for index in range(2 - lost, 2):
        lines[index] = json.dumps(json.loads(lines[index]) | nothing) + "\n"
    (folder / "metrics.jsonl").write_text("".join(lines))
    page = page_of(folder)
    assert ("3.56 bits" in page.text) == shown
    assert page.refers <= set(page.ids)


def test_only_config_toml_is_needed(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=1, ledger=False, done=False, images=False)
    (folder / "environment.json").unlink()
    text = page_of(folder).text
    assert "nothing vouches for the figures of privacy" in text
    assert "The command was not recorded" in text


def test_the_reason_of_an_early_end_is_shown_as_text(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3, done=False)
    (folder / "FAILED").write_text("disk <script>full</script>\n")
    page = page_of(folder)
    assert "stopped with an error after round 3 of 12" in page.text
    assert "disk &lt;script&gt;full" in page.source
    (folder / "FAILED").unlink()
    (folder / "DONE").write_text("the budget of epsilon 8 is spent\n")
    assert "ended after round 3 of 12" in page_of(folder).text
    assert "the budget of epsilon 8 is spent" in page_of(folder).text


def test_a_run_with_known_coins_claims_no_epsilon(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["privacy.clip=0.5"], rounds=2, coins="test", done=False)
    text = page_of(folder).text
    assert "This run claims no ε: its coins were known." in text
    assert "ε for one client’s whole contribution is inf" in text
    assert "strong guarantee" not in text


def test_a_record_level_guarantee_of_the_ledger_is_shown(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=2, ledger=False)
    release = MomentRelease.calibrated(epsilon=1.973, delta=1e-5, records=1000)
    with Ledger.create(folder / "ledger.jsonl", LedgerKey(), federation="f") as ledger:
        ledger.append(
            round=0,
            kind="moments",
            release=release.as_dict(),
            delta=1e-5,
            epsilon=None,
            cohort=10,
            record=RecordGuarantee.of(release, 1e-5),
        )
    text = page_of(folder).text
    assert "all rounds together – 1.98" in text
    assert "not claimed" not in text


def test_both_epsilons_stand_side_by_side_each_with_what_it_protects(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["privacy.record_epsilon=2"], rounds=3)
    page = page_of(folder)
    for words in (
        "One image of one client ε(one image) = 2.00 is a limited guarantee.",
        "Everything one client contributes ε(SUM) =",
        "each client made one noisy summary of its images before the first round",
        "What is computed from a noisy summary cannot tell more about an image than the summary itself.",
        "from anybody: the server, the other clients, whoever has the model; all rounds together – 2.00",
        "one record is replaced by any other, its label included; the number of records is public",
        "after the moments that protect single images at ε = 2.00",
        "ε(one image) is 2.00 throughout",
    ):
        assert words in page.text
    assert "ε(one image) 2.00" in page.source.split("</title>")[0]


def test_a_summed_release_is_said_to_have_left_the_clients(tmp_path: Path) -> None:
    overrides = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_cohort=0"]
    folder = fake_run.make_run(tmp_path, overrides, rounds=2)
    (folder / "moments.json").write_text('{"survivors":10,"uplink_bytes":5154200,"downlink_bytes":80000}\n')
    text = page_of(folder).text
    assert "one sum over all clients of noisy feature moments was opened before the first round" in text
    assert "never left the clients" not in text
    assert "holds while 10 of them are honest" in text
    # A share carries 1/√10 of the noise.
    share = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)
    share = dataclasses.replace(share, sigma=share.sigma / math.sqrt(10))
    shown = wording.format_epsilon(share.epsilon(1e-5))
    assert f"its client's share seen in the clear {shown}" in text
    assert "Summing the moments before the first round took 5.15 MB from all clients" in text


def test_how_the_release_was_opened_is_what_was_signed_and_not_what_config_toml_says(tmp_path: Path) -> None:
    overrides = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_cohort=0"]
    folder = fake_run.make_run(tmp_path, overrides, rounds=1)
    signed = page_of(folder).text
    path = folder / "config.toml"
    text = path.read_text("utf-8")
    for old, new in (('"summed"', '"client"'), ("record_cohort = 0", "record_cohort = 1")):
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), "utf-8")
        page = page_of(folder).text
        assert "holds while 10 of them are honest" in page
        for words in ("one sum over all clients", "its client's share seen in the clear"):
            assert page.count(words) == signed.count(words) > 0


def test_noise_that_each_client_adds_alone_needs_nobodys_trust(tmp_path: Path) -> None:
    overrides = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_cohort=1"]
    text = page_of(fake_run.make_run(tmp_path, overrides, rounds=1)).text
    assert "Each client put all of this noise into its own summary before anything left it" in text
    assert "from anybody: the server, the other clients, whoever has the model" in text


def test_groups_cost_what_the_accountant_and_the_release_say(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["privacy.record_epsilon=2", "privacy.clip=0.5"], rounds=2)
    (row,) = re.findall(
        r'<tr><th scope="row">5</th>(.*?)</tr>', page_of(folder).source.split('id="groups"')[1]
    )
    shown = re.findall(r'<td class="n">(.*?)</td>', row)
    accountant = Accountant(delta=1e-5)
    accountant.spend(MaskRelease(0.1, 0.5, cohort=10, dim=fake_run.PARAMETERS), 2)
    clients = [accountant.group(5, v, a) for v in (View.SUM, View.UPLOAD) for a in Adjacency]
    release = MomentRelease.calibrated(epsilon=2.0, delta=1e-5, records=1000, classes=10)
    five = MomentRelease(**{**release.as_dict(), "sigma": release.sigma / 5}).epsilon(1e-5)
    assert shown == [wording.format_epsilon(epsilon) for epsilon in (five, *clients)]


def test_a_charged_round_that_is_not_finished_counts(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3, done=False)
    metrics = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(metrics[:2]))
    history = read_history(folder)
    assert history.charged_unfinished == [3]
    third = fake_run.epsilon_after(history.config, 3, View.SUM, Adjacency.ZERO_OUT)
    assert history.to_date is not None
    assert history.to_date.sum_zero_out == third
    text = page_of(folder).text
    assert "Charged in the ledger and not finished: round 3." in text
    assert f"whole contribution is {wording.format_epsilon(third)}" in text
    (folder / "metrics.jsonl").unlink()
    assert "Charged in the ledger and not finished: round 1, 2, 3." in page_of(folder).text


def test_lower_bounds_of_an_audit_stand_beside_the_figures_rounded_down(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["privacy.record_epsilon=2"], rounds=2)
    bounds = [
        {"unit": "client", "view": "sum", "adjacency": "zero_out", "epsilon": 12.39, "confidence": 1.0},
        {"unit": "record", "view": None, "adjacency": "swap", "epsilon": 0.9999, "confidence": 0.95},
    ]
    (folder / "audit.json").write_text(json.dumps({"verdict": "clean", "lower_bounds": bounds}))
    text = page_of(folder).text
    assert "≥ 12.3 computed" in text
    assert "2.00 ≥ 0.999 95% sure" in text
    bounds[0]["epsilon"] = "inf"  # as an audit writes it
    (folder / "audit.json").write_text(json.dumps({"verdict": "clean", "lower_bounds": bounds}))
    assert "≥ inf computed" in page_of(folder).text
    (folder / "audit.json").write_text('{"lower_bounds": [{"epsilon": "x"}]}')
    with pytest.raises(RunFolderError, match=r"audit\.json is damaged"):
        write_report(folder)


def test_metrics_on_private_images_are_marked_as_outside_epsilon(tmp_path: Path) -> None:
    text = page_of(fake_run.make_run(tmp_path, ["metrics.held_out=private"], rounds=1)).text
    assert "declared private: these figures say something about them that no ε covers" in text


def test_figures_below_the_signed_ledger_are_pointed_out(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3)
    assert "disagree" not in page_of(folder).text
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"sum_zero_out":5', '"sum_zero_out":4')
    path.write_text("\n".join(lines) + "\n")
    assert "metrics.jsonl and the ledger disagree in round 2" in page_of(folder).text


def test_a_run_of_a_sweep_says_that_its_epsilon_is_not_the_whole(tmp_path: Path) -> None:
    alone = fake_run.make_run(tmp_path / "runs" / "one", [], images=False)
    assert "One run of a sweep" not in write_report(alone).read_text("utf-8")
    (tmp_path / "sweep.toml").touch()
    assert "One run of a sweep" in write_report(alone).read_text("utf-8")


def test_writing_twice_gives_the_same_page_and_touches_nothing_else(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=2)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"round": 3, "surv')  # what a run that is writing, or was killed, leaves
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before | {folder / "report.html": first}


def cut(name: str, keep: int) -> object:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def replace_in(name: str, old: bytes, new: bytes) -> object:
    def apply(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new, 1))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.toml").unlink(), "not a run folder"),
        (replace_in("config.toml", b"clients = 10", b"clients = 1"), "damaged"),
        (replace_in("metrics.jsonl", b'"survivors":10', b'"survivors":"x"'), r"metrics\.jsonl.* line 1"),
        (
            replace_in("metrics.jsonl", b'"round":2', b'"round":7'),
            "line 2: expected round 2, got round 7",
        ),
        (replace_in("metrics.jsonl", b"{", b"\xff"), r"metrics\.jsonl is damaged in line 1"),
        (cut("samples/round-0001.png", 300), r"round-0001\.png is damaged"),
        (cut("environment.json", 20), r"environment\.json is damaged"),
        (replace_in("ledger.jsonl", b'"colluders":0', b'"colluders":1'), r"ledger\.jsonl, line 2"),
        (cut("ledger.jsonl", 0), r"ledger\.jsonl"),
        (lambda folder: (folder / "samples" / "round-x.png").write_bytes(b""), r"round-x\.png"),
    ],
)
def test_damage_is_named_and_the_old_page_stays(tmp_path: Path, damage: object, message: str) -> None:
    folder = fake_run.make_run(tmp_path, rounds=2)
    old = write_report(folder).read_bytes()
    damage(folder)
    with pytest.raises(RunFolderError, match=message):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == old


def test_a_long_run_with_large_colour_images_stays_small(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["federation.rounds=600"], rounds=0, ledger=False, done=False)
    config = load_config(folder / "config.toml")
    lines = b"".join(encode(fake_run.record_of(config, number)) + b"\n" for number in range(1, 601))
    (folder / "metrics.jsonl").write_bytes(lines)
    noise = np.random.default_rng(0).integers(0, 256, (100, 3, 128, 128), dtype=np.uint8)
    grid = encode_png(sample_grid(noise, np.repeat(np.arange(10), 10), scale=1))
    for number in (1, 300, 600):
        (folder / "samples" / f"round-{number:04d}.png").write_bytes(grid)
    page = page_of(folder)
    assert len(page.source.encode()) < 3_000_000
    assert "evenly spaced" in page.text
    assert page.source.count("of 10</td>") == 150


def test_images_without_classes_have_a_page(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, ["model.conditional=false"], rounds=2, images=False)
    images, _ = fake_run.drawn_images(0.1, channels=3)
    for number in (1, 2):
        path = folder / "samples" / f"round-{number:04d}.png"
        path.write_bytes(encode_png(sample_grid(images, columns=20)))
    page = page_of(folder)
    assert page.images == 5 + 2
    assert "A generator of Fashion-MNIST" in page.text


def test_history_keeps_the_records_as_they_are(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3)
    history = read_history(folder)
    assert history.records == [fake_run.record_of(history.config, number) for number in (1, 2, 3)]
    assert [number for number, _ in history.samples] == [1, 2, 3]
    assert history.environment["command"].startswith("prism-secure run")


@given(st.floats(min_value=0, allow_nan=False))
def test_epsilon_is_never_shown_below_its_value(epsilon: float) -> None:
    shown = wording.format_epsilon(epsilon)
    assert float(shown.replace(",", "")) >= epsilon
    if 0 < epsilon < math.inf:
        assert float(shown.replace(",", "")) <= max(epsilon * 1.1, epsilon + 1 if epsilon >= 100 else 0)


@pytest.mark.parametrize("epsilon", [-0.1, math.nan])
def test_what_is_no_epsilon_is_not_written(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        wording.format_epsilon(epsilon)


@given(st.floats(0, 800), st.floats(0, 800), st.floats(1e-9, 0.01))
def test_a_larger_epsilon_never_sounds_safer(one: float, other: float, delta: float) -> None:
    small, large = sorted((one, other))
    assert wording.true_alarms(small, delta) <= wording.true_alarms(large, delta)
    order = ["strong", "limited", "weak", "none"]
    levels = [order.index(wording.verdict(epsilon, delta).level) for epsilon in (small, large)]
    assert levels == sorted(levels)


def test_there_is_one_scale_of_epsilon(default: Page) -> None:
    for level, limit in (("strong", wording.STRONG), ("limited", wording.LIMITED)):
        assert wording.verdict(limit, 1e-5).level == wording.image_verdict(limit, 1e-5).level == level
        assert wording.verdict(limit + 0.01, 1e-5).level != level
    assert f"Up to ε = {wording.STRONG} a guarantee is called strong" in wording.SCALE
    assert f"up to {wording.LIMITED} limited" in wording.SCALE
    assert wording.SCALE in default.text
    others = re.sub(re.escape(wording.SCALE), "", default.text)
    assert not re.search(r"near 1|very little|strong promise", others)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.5, 1e-5), (2.0, 1e-3), (6.7, 1e-5)])
def test_true_alarms_are_those_of_the_worst_mechanism(epsilon: float, delta: float) -> None:
    """The (eps, delta) mechanism that dominates all others, with its four outcomes, tested optimally."""
    share = (1 - delta) / (1 + math.exp(epsilon))
    null = [delta, share * math.exp(epsilon), share, 0.0]
    other = [0.0, share, share * math.exp(epsilon), delta]
    left, found = wording.FALSE_ALARMS, 0.0
    for p, q in sorted(zip(null, other, strict=True), key=lambda pq: pq[0] / pq[1] if pq[1] else math.inf):
        taken = 1.0 if p <= left else left / p
        left, found = left - taken * p, found + taken * q
    assert wording.true_alarms(epsilon, delta) == pytest.approx(found, abs=1e-12)


def heights(svg: str, colour: str) -> list[float]:
    """Where the markers of a colour lie; an SVG counts downwards."""
    return [float(y) for y in re.findall(rf'<use [^>]*y="([\d.]+)" style="fill: var\(--{colour}\)', svg)]


def test_infinity_has_its_own_place_above_every_finite_epsilon() -> None:
    curves = Curve("ε(SUM)", "sum", [10.5, math.inf]), Curve("ε(UPLOAD)", "upload", [1e7, math.inf])
    svg = curves_plot([], curves, last=2)
    assert "∞" in svg
    (ten, sum_at_infinity), (most, upload_at_infinity) = heights(svg, "one"), heights(svg, "two")
    assert ten > most > max(sum_at_infinity, upload_at_infinity)
    assert abs(sum_at_infinity - upload_at_infinity) > 5  # they do not hide each other


def test_what_grows_is_said_to_and_its_budget_is_drawn() -> None:
    curves = (
        Curve("ε(SUM)", "sum", [0.2, 0.8], planned=2.0),
        Curve("ε(one image)", "image", [1.0, 1.0]),
        Curve("ε(UPLOAD)", "upload", [8.0, 41.0]),
    )
    svg = curves_plot([(2, 234.3)], curves, last=8, budgets={"one client": 2.0})
    assert "ε(SUM) grows from 0.20 to 0.80" in svg
    assert "ε(one image) is 1.00 throughout" in svg
    assert "the budget of one client is 2.00" in svg
    assert ">budget 2.00<" in svg
    image, person = (
        curves_plot([], curves, last=8, budgets={f"one {record}": 2.0}) for record in ("image", "person")
    )
    assert person.replace("budget of one person", "budget of one image") == image != svg
    for words in ("FID 234.3", "ε(SUM) 0.80", "ε(one image) 1.00", "ε(UPLOAD) 41.0"):
        assert f">{words}<" in svg, "each line is named at its end"
    # The small ones share a panel; the one that leads above ten lies in another, below.
    assert max(heights(svg, "one") + heights(svg, "three")) < min(heights(svg, "two"))


def test_a_line_keeps_its_panel_while_it_grows_into_what_was_planned() -> None:
    """Where one client's uploads begin at 8 and lead to 169 they must not press the others down."""
    curves = (
        Curve("ε(SUM)", "sum", [0.19], planned=2.0),
        Curve("ε(UPLOAD)", "upload", [8.3], planned=169.0),
    )
    svg = curves_plot([], curves, last=8)
    assert "where it leads above 10" in svg
    assert max(heights(svg, "one")) < min(heights(svg, "two"))


def test_names_at_the_lines_ends_lie_apart() -> None:
    curves = [Curve(f"ε({kind})", kind, [1.0, 2.0 + i / 1000]) for i, kind in enumerate(("sum", "image"))]
    svg = curves_plot([], curves, last=2)
    places = re.findall(r'<text [^>]*? y="([\d.]+)"[^>]*>(ε\((?:sum|image)\) [\d.]+)<', svg)
    assert len(places) == 2
    first, second = (float(y) for y, _ in places)
    assert abs(first - second) > 8


def test_the_servers_loss_is_drawn_over_the_same_rounds_from_two_on() -> None:
    title, curves = "The server’s loss on opened values", [Curve("ε(SUM)", "sum", [1.0, 2.0])]
    svg = curves_plot([(1, 300.0), (2, 120.0)], curves, last=2, losses=[(1, 0.7), (2, 0.0123)])
    assert title in svg
    assert ">loss 0.0123<" in svg, "its line is named where it ends"
    assert "the loss of the server goes from 0.7 to 0.0123" in svg
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == {"ink", "faint", "one", "font"}
    above, below = heights(svg, "ink")[-2:]
    assert above < below, "a smaller loss lies lower"
    for few in ([], [(2, 0.5)], [(1, math.nan), (2, 0.5)], [(1, 0.0), (2, 0.5)]):
        assert title not in curves_plot([], curves, last=2, losses=few)


def test_a_run_whose_server_wrote_no_loss_has_a_page_without_it(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3)
    assert "server’s loss" not in page_of(folder).text.lower()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"server_loss": 0.5 / 4**number} if number else {}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(folder)
    assert "The server’s loss on opened values" in page.source
    assert "never from a client’s, and so costs no ε" in page.text
    time = page.source[page.source.index('<table id="time-table"') :]
    cells = [re.findall(r'<td class="n">(.*?)</td>', row) for row in re.findall("<tr>.*?</tr>", time)[1:4]]
    assert [row[7] for row in cells] == ["–", "0.125", "0.0312"], "each round's as text"


def test_the_plot_leaves_colours_fonts_and_size_to_the_page() -> None:
    svg = curves_plot([(1, 300.0), (2, 120.0)], [Curve("ε(SUM)", "sum", [1.0, 2.0])], last=2)
    assert not re.search(r"#[0-9a-f]{6}\b|DejaVu|<svg[^>]* width=|<style|<metadata", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == {"ink", "faint", "one", "font"}
    assert "FID from 300.0 after round 1 to 120.0 after 2" in svg


def test_a_figure_that_is_not_finite_is_left_out_of_the_line() -> None:
    assert "nan" not in curves_plot([(1, 300.0), (2, math.inf), (3, 120.0)], [], last=3).lower()


def test_the_environment_is_json_without_infinities(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=0, ledger=False, done=False)
    json.loads((folder / "environment.json").read_text(), parse_constant=pytest.fail)


SUMMED = ["privacy.record_epsilon=2", "privacy.record_release=summed", "privacy.record_cohort=0"]


def test_image_is_said_to_be_protected_from_whom_everywhere_on_the_page(tmp_path: Path) -> None:
    text = page_of(fake_run.make_run(tmp_path / "summed", SUMMED, rounds=2)).text
    words = "against an observer of the opened sums, while all 10 clients are honest"
    assert f"is 2.00 , all rounds together, {words}" in text, "lead"
    assert f"It holds {words}." in text, "verdict"
    assert f"ε(one image) protects a single image, {words}" in text, "caption of the figure"
    assert "all rounds together; SUM, 10 of 10 honest" in text, "card"
    assert "which sees the opened moments and sums, while all 10 clients are honest" in text, "table"
    assert "anybody who has all of it" not in text
    for row in (
        "1 colluder 2.13",
        "3 colluders 2.45",
        "5 colluders and an honest-but-curious server 2.96",
    ):
        assert row in text
    own = page_of(fake_run.make_run(tmp_path / "own", SUMMED[:1], rounds=2)).text
    assert "ε(one image) protects a single image, against anybody, whoever else is honest" in own
    assert "colluder 2." not in own


def test_round_that_adds_nothing_is_shown_to_cost_nothing(tmp_path: Path) -> None:
    """Where the ledger says so (`added`), or, as older ones do, by its bound alone; others keep theirs."""
    for name, changes, shown in (
        ("added", {"added": 0.0}, "0"),
        ("older", {"bound": AFTER_MOMENTS}, "0"),
        ("masks", {}, "178,345"),
    ):
        folder = fake_run.make_run(tmp_path / name, SUMMED, rounds=0, done=False)
        spent = Spent(178_344.5, 200_000.0, 200_000.0, **changes)
        record = fake_run.record_guarantee(load_config(None, SUMMED))
        with Ledger.create(
            folder / "ledger.jsonl.new", LedgerKey(), federation="f" * 32, clients=10, records=1000,
            settings={"record_release": "summed"},
        ) as ledger:  # fmt: skip
            ledger.append(
                kind="moments",
                round=0,
                release=record.release,
                cohort=10,
                delta=1e-5,
                epsilon=dict.fromkeys(CELLS, Spent(200_000.0, 200_000.0, 200_000.0)),
                record=record,
            )
            ledger.append(
                round=1,
                release=MaskRelease(0.1, None, cohort=10, dim=fake_run.PARAMETERS),
                delta=1e-5,
                epsilon=dict.fromkeys(CELLS, spent),
                record=record,
            )
        for end in ("", ".head"):
            (folder / f"ledger.jsonl.new{end}").replace(folder / f"ledger.jsonl{end}")
        source = page_of(folder).source
        costs = re.findall(r'<td class="n group">([^<]+)</td>', source)
        assert costs[-4:] == [shown] * 4, name


def test_inf_stands_beside_its_cause_and_what_makes_it_finite(tmp_path: Path) -> None:
    text = page_of(fake_run.make_run(tmp_path / "flip", ["privacy.flip=0"], rounds=1)).text
    assert "ε(SUM) and ε(UPLOAD) are inf: privacy.flip = 0 leaves the masks without noise" in text
    advice = re.search(
        r"privacy\.flip=0\.1 and privacy\.clip=\S+ would make them (\d+\.\d) and (\d+\.\d)", text
    )
    assert advice
    assert max(map(float, advice.groups())) <= 100
    scores = ["privacy.flip=0", "mask.score_layers=0.5"]
    text = page_of(fake_run.make_run(tmp_path / "scores", scores, rounds=1)).text
    assert (
        "the last layers send scores, without noise; privacy.flip=0.1, mask.score_layers=0 and privacy"
        in text
    )
    assert "would make" not in page_of(fake_run.make_run(tmp_path / "finite", rounds=1)).text


def test_drowning_noise_and_rounds_that_changed_nothing_are_told(tmp_path: Path) -> None:
    folder = fake_run.make_run(tmp_path, rounds=3, done=False)
    assert "changed nothing" not in page_of(folder).text, "nobody counted"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line, changed in zip(lines, (7012, 0, 15), strict=True):
        line["changed"] = changed
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = json.loads((folder / "environment.json").read_bytes())
    kept["facts"]["drowned"] = "noise will drown the images: so long"
    (folder / "environment.json").write_text(json.dumps(kept))
    text = page_of(folder).text
    assert "A round that changed nothing: 2." in text
    assert "7,012" in text
    assert "Too few images for so much noise: noise will drown the images: so long." in text
