"""What a person at a terminal meets: one clear line and an exit code, whatever went wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess as Process
from pathlib import Path
from typing import TypeVar
from unittest.mock import Mock

import msgspec
import pytest

from prism_privacy import Accountant, Adjacency, MaskRelease, View
from prism_secure.accounting.epsilons import Epsilons
from prism_secure.cli import UNREAD, main
from prism_secure.config import Config, dump_config, load_config
from prism_secure.errors import ConfigError, StorageError
from prism_secure.reporting.progress import describe_round
from prism_secure.rounds import simulation
from prism_secure.run_folder.records import Quality, RoundRecord
from prism_secure.wording import format_epsilon

from .tiny_data import small_images

Started = TypeVar("Started")

TINY = """
[federation]
clients = 3
rounds = 2
local_steps = 1
workers = 1
[model]
width = 4
latent = 8
[features]
extractors = ["fourier"]
[training]
batch_size = 20
[metrics]
samples = 200
utility = "off"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def quick(recipe: Path) -> Path:
    """The same over few and small images, for tests to which processes matter and not figures."""
    images = f"image_size = 8\n[data]\nsource = 'idx'\nfolder = '{small_images()}'"
    recipe.write_text(TINY.replace("latent = 8", f"latent = 8\n{images}"))
    return recipe


def _start(recipe: Path, out: Path, **how: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "prism_secure.cli", "run", "--config", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def _forked(recipe: Path, out: Path, before: Callable[[], None] = lambda: None) -> Process:
    """The same in a child of this process, which has torch loaded; what it says is in a file `complaint`."""

    def command() -> None:
        with out.with_name("complaint").open("w") as sys.stderr:
            before()
            sys.exit(main(["run", "--config", str(recipe), "--out", str(out)]))

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    return process


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_run_prints_a_line_a_round_and_where_the_report_is(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--config", str(recipe), "--out", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0).startswith(f"{recipe} names no recipe: what it leaves out has its default")
    assert lines[0] == "checking the recipe: its data, its weights, its epsilons, and a round in small"
    against = "ε(image) = 2.00 against an observer of the opened sums, while all 3 clients are"
    assert lines[1].startswith(against)
    assert lines[2].startswith("ε(SUM) and ε(UPLOAD) are inf: ")
    assert lines[3] == "measuring features of 10,000 images of 3 clients, once; then round 1"
    assert lines.pop(4) == "opening the one noisy sum of their moments"
    assert "everything one client contributes" in lines[4]
    assert "one image of one client" in lines[4]
    assert "FID" in lines[5]
    assert [line.split()[0] for line in lines[6:8]] == ["1/2", "2/2"]
    assert lines[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"

    assert main(["run", "--config", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run")]) == 0
    assert main(["ledger", "verify", str(tmp_path / "run" / "ledger.jsonl")]) == 0
    (tmp_path / "run" / "ledger.jsonl.head").rename(tmp_path / "head")
    assert main(["ledger", "verify", str(tmp_path / "run" / "ledger.jsonl")]) == 1
    assert "cut off the end" in capsys.readouterr().err
    (tmp_path / "head").rename(tmp_path / "run" / "ledger.jsonl.head")
    text = (tmp_path / "run" / "ledger.jsonl").read_text("utf-8")
    (tmp_path / "run" / "ledger.jsonl").write_text(text.replace('"colluders":0', '"colluders":1', 1))
    assert main(["ledger", "verify", str(tmp_path / "run" / "ledger.jsonl")]) == 1
    assert "line 2" in capsys.readouterr().err


def test_a_run_s_process_loads_no_compiler_and_no_torchvision(quick: Path, tmp_path: Path) -> None:
    """They take up to a second each, in every process that trains or measures."""
    heavy = {"torch._dynamo", "torchvision", "sympy", "scipy.signal", "scipy.stats", "pandas", "pyarrow"}
    command = ["run", "--config", str(quick), "--out", str(tmp_path / "run")]
    code = f"import sys; from prism_secure.cli import main; code = main({command}); "
    code += f"print('LOADED', *sorted({heavy} & sys.modules.keys())); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--set", "privacy.flop=1"], 2, "did you mean 'privacy.flip'?"),
        (["run", "--set", "data.source=idx", "--set", "data.folder=nowhere"], 3, "nowhere"),
        (["run", "--set", "data.source=mnist"], 2, "data.folder"),
        (["run", "--set", 'features.extractors=["vgg19_bn"]'], 3, "VGG19-BN"),
        (["run", "--recipe", "one-shot", "--set", "training.batch_size=15"], 2, "multiple of the 10 classes"),
        (
            ["config", "--epsilon", "--recipe", "one-shot", "--set", "training.batch_size=15"],
            2,
            "multiple of the 10 classes",
        ),
        (
            [
                "config",
                "--epsilon",
                "--recipe",
                "one-shot",
                "--set",
                "training.batch_size=15",
                "--set",
                "training.end_steps=0",
                "--set",
                "privacy.record_epsilon=inf",
            ],
            2,
            "take 20, or model.conditional = false",
        ),
        (
            ["config", "--epsilon", "--recipe", "cross-device", "--set", "training.batch_size=3"],
            2,
            "take 10, or model.conditional = false",
        ),
        (["run", "--config", "missing.toml"], 2, "missing.toml"),
        (["report", "nowhere"], 4, "nowhere"),
        (["ledger", "verify", "nowhere"], 2, "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "run":
        arguments = [*arguments, "--out", str(tmp_path / "run"), "--set", "federation.workers=1"]
    assert main(arguments) == code
    complaint = capsys.readouterr().err
    assert complaint.startswith("prism-secure: ")
    assert complaint.count("\n") == 1
    assert message in complaint


def test_truncated_data_file_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).write_bytes(b"\x00\x00\x08\x03\x00\x00")
    arguments = ["--set", "data.source=idx", "--set", f"data.folder={folder}"]
    assert main(["run", "--config", str(recipe), "--out", str(tmp_path / "run"), *arguments]) == 3
    assert "idx" in capsys.readouterr().err


def test_full_disk_is_one_line_and_the_run_continues_when_there_is_room(quick: Path, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = _forked(quick, tmp_path / "run", small_files)
    process.join(200)
    complaint = (tmp_path / "complaint").read_text()
    assert process.exitcode == 5, complaint
    assert complaint.startswith("prism-secure: ")
    assert complaint.count("\n") == 1
    assert main(["run", "--config", str(quick), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "DONE").exists()


def _in_a_round(recipe: Path, out: Path, start: Callable[[Path, Path], Started]) -> Started:
    """A long run, when its first round is over."""
    recipe.write_text(recipe.read_text().replace("rounds = 2", "rounds = 500"))
    process = start(recipe, out)
    deadline = time.monotonic() + 200
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_ctrl_c_is_one_line_and_an_exit_code(quick: Path, tmp_path: Path) -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C, which children inherit.
    process = _in_a_round(quick, tmp_path / "run", partial(_start, preexec_fn=_hear_ctrl_c))
    # A Ctrl-C that falls into a library's ctypes callback is lost, as for every Python program: press again.
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        try:
            _, complaint = process.communicate(timeout=50)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130, complaint
    assert complaint == "prism-secure: interrupted; the same command continues where it stopped\n"
    assert not (tmp_path / "run" / "FAILED").exists()


def test_sigterm_is_one_line_and_an_exit_code(quick: Path, tmp_path: Path) -> None:
    process = _in_a_round(quick, tmp_path / "run", _forked)
    process.terminate()
    process.join(100)
    complaint = (tmp_path / "complaint").read_text()
    assert process.exitcode == 143, complaint
    assert complaint == "prism-secure: terminated; the same command continues where it stopped\n"
    assert not (tmp_path / "run" / "FAILED").exists()


@pytest.mark.parametrize(("every", "said"), [(0.0, ["1 of 3", "2 of 3"]), (1000.0, [])])
def test_work_before_round_1_gives_signs_of_life(every: float, said: list[str]) -> None:
    listener = Mock()
    simulation._tell(iter([7, 2, 5]), 3, listener, every=every)
    told = [call.args[0] for call in listener.note.call_args_list]
    assert told == [f"features measured of {count} clients" for count in said]


def _command_of(process: str) -> bytes:
    """What it was started as; nothing where it has ended since it was listed."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_ctrl_c_while_workers_start_is_one_line(command: str, quick: Path, tmp_path: Path) -> None:
    """A terminal sends it to the workers as well, which are busy with imports then."""
    long = quick.read_text().replace("rounds = 2", "rounds = 500")
    quick.write_text(
        long.replace("workers = 1", "workers = 2") + "\n[sweep]\nseeds = [0, 1]\n[sweep.grid]\n"
        "privacy.record_epsilon = [2.0]\n" * (command == "sweep")
    )
    how = ["--config", str(quick)] if command == "run" else [str(quick), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "prism_secure.cli", command, *how, "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    starting = re.compile(rb"spawn_main|forkserver")
    deadline = time.monotonic() + 200
    try:
        while time.monotonic() < deadline and not any(
            starting.search(_command_of(child)) for child in children.read_text().split()
        ):
            time.sleep(0.002)
        time.sleep(0.2)
        # One that falls into a library's ctypes callback is lost, as for every Python program: press again.
        for _ in range(5):
            os.killpg(process.pid, signal.SIGINT)
            try:
                _, complaint = process.communicate(timeout=60)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert complaint == "prism-secure: interrupted; the same command continues where it stopped\n"
    # Python ends itself by the signal where it fell into an `exec`, as of a data class in an import.
    assert process.returncode in (130, -signal.SIGINT), "a shell says 130 of both"


def test_a_command_ends_without_a_search_for_garbage():
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); "
    code += "import prism_secure.cli"  # what is registered first is called last
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("command", "within"),
    [
        ("doctor", "prism_secure.commands.doctor.findings"),
        ("audit measured", "prism_secure.audit.measured_client.audit_measured_client"),
        ("bench secure-sum", "prism_crypto.bench.secure_sum.main"),
    ],
)
def test_only_what_continues_is_said_to_continue(
    command: str, within: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(within, Mock(side_effect=KeyboardInterrupt))
    assert main(command.split()) == 130
    told = "prism-secure: interrupted; the same command starts again from the beginning\n"
    assert capsys.readouterr().err == told


def test_config_prints_a_recipe_that_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--recipe", "one-shot", "--set", "privacy.clip=2"]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert load_config(tmp_path / "mine.toml") == load_config(None, ["privacy.clip=2"], recipe="one-shot")
    assert main(["config", "--explain"]) == 0
    explained = capsys.readouterr().out
    for line in dump_config(Config()).splitlines():
        if " = " in line:
            assert f"  {line.split(' = ')[0]} = " in explained
    for must in (
        "samples = 2000    (a whole number, at least 200)",
        "hold = 0.6    (a number, in [0, 1])",
        "(a number, in [0, 0.5))",
    ):
        assert must in explained


def test_none_is_the_one_word_for_a_setting_without_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--explain"]) == 0
    explained = capsys.readouterr().out
    assert "  clip = none    (a positive number | none)" in explained
    assert "left out" not in explained, "that is a client's, where epsilon compares worlds"
    given = load_config(None, ["privacy.clip=2", "secure_sum.min_survivors=8", "budget.epsilon=9"])
    assert given.privacy.clip == 2.0
    for name in ("privacy.clip", "secure_sum.min_survivors", "budget.epsilon"):
        section, key = name.split(".")
        unset = load_config(None, [f"{name}=1", f"{name}=none"])
        assert getattr(getattr(unset, section), key) is None
    with pytest.raises(ConfigError, match=r"privacy\.flip must be"):
        load_config(None, ["privacy.flip=none"])


def test_config_epsilon_says_what_a_run_would_guarantee(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["config", "--config", str(recipe), "--epsilon"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0).startswith(f"{recipe} names no recipe: what it leaves out has its default")
    assert lines[0].startswith("2 rounds; 3 clients, ")
    assert lines[1].split()[-3:] == ["ε", "=", "2.00"]
    assert lines[2] == "  against an observer of the opened sums, while all 3 clients are honest"
    assert [line.split()[-1] for line in lines[3:5]] == ["2.52", "3.73"], "a colluder; a share seen"
    assert lines[5].endswith("left out    replaced")
    assert [line.split()[-2:] for line in lines[6:8]] == [["inf", "inf"]] * 2
    said = " ".join(lines[9:])
    assert said.startswith("ε(SUM) and ε(UPLOAD) are inf: ")
    assert said.endswith("privacy.record_release=client and privacy.clip=1 would make them 27.8 and 32.4")

    exact = ["privacy.record_epsilon=inf", "privacy.clip=1.0", "privacy.flip=0.25", "federation.rounds=9"]
    for setting in exact:
        command += ["--set", setting]
    release = MaskRelease(flip=0.25, clip=1.0, cohort=3)
    accountant = Accountant(delta=1e-5)
    accountant.spend(release, rounds=4)
    limit = accountant.epsilon(View.SUM, Adjacency.ZERO_OUT)
    assert main([*command, "--set", f"budget.epsilon={limit * 1.001}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0).startswith(str(recipe))
    assert lines[0].startswith(f"4 rounds of 9, as far as budget.epsilon = {limit * 1.001} goes; ")
    assert lines[1].split()[-1] == "inf"
    for line, view in zip(lines[3:5], (View.SUM, View.UPLOAD), strict=True):
        cells = [format_epsilon(accountant.epsilon(view, each)) for each in Adjacency]
        assert line.split()[-2:] == cells


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["report"],
        ["config"],
        ["ledger"],
        ["ledger", "verify"],
        ["bench"],
        ["bench", "secure-sum"],
    ],
)
def test_help_is_there_for_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize("rest", [[], ["--quick"], ["--quick", "--json", "figures.json"]])
def test_the_benchmark_gets_what_follows_its_name(rest: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("prism_crypto.bench.secure_sum.main", lambda argv: asked.append(argv) or 0)
    assert main(["bench", "secure-sum", *rest]) == 0
    assert asked == [rest]


@pytest.mark.parametrize("group", [[], ["audit"], ["ledger"], ["identity"], ["bench"]])
def test_whoever_names_no_command_sees_which_there_are(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(group)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert "positional arguments:" in captured.err
    assert captured.err.endswith(" NAME --help` says more\n")


def test_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["config", "--explian"])
    assert end.value.code == 2
    assert "--explian" in capsys.readouterr().err


def test_a_round_that_was_not_measured_says_so() -> None:
    epsilons = Epsilons(sum_zero_out=1.0, sum_replace_one=2.0, upload_zero_out=3.0, upload_replace_one=4.0)
    record = RoundRecord(
        round=1, survivors=3, epsilon=epsilons, bits_per_parameter=3.556, uplink_bytes=1, downlink_bytes=1,
        step=1.0, seconds=1.0, secure_sum_seconds=0.1,
    )  # fmt: skip
    assert "–" in describe_round(record, 10)
    assert "as before" not in describe_round(record, 10), "nobody counted"
    assert "as before" not in describe_round(msgspec.structs.replace(record, changed=1), 10)
    assert "the deployed mask is as before" in describe_round(msgspec.structs.replace(record, changed=0), 10)
    quality = Quality(fid=99.0, kid=0.5, precision=0, recall=0, density=0, coverage=0)
    measured = msgspec.structs.replace(record, quality=quality)
    assert "99.0" in describe_round(measured, 10)


def test_a_reader_that_has_seen_enough_ends_a_command_silently() -> None:
    explain = [sys.executable, "-m", "prism_secure.cli", "config", "--explain"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(explain, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (UNREAD, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["config"], ["doctor"]])
def test_output_that_cannot_be_written_is_one_line_and_an_exit_code(
    command: list[str], unbuffered: str, tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prism_secure.cli", *command],
            stdout=full, stderr=subprocess.PIPE, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    said = b"prism-secure: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (StorageError.exit_code, said)


def test_a_command_whose_output_was_closed_before_it_began_ends_as_it_would() -> None:
    config = [sys.executable, "-m", "prism_secure.cli", "config"]
    done = subprocess.run(config, stderr=subprocess.PIPE, check=False, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")


def test_config_epsilon_of_many_clients_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--epsilon", "--recipe", "one-shot", "--set", "federation.clients=5000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stands on recipe one-shot"
    assert "; 5,000 clients, 307,600 mask bits" in lines[1]
    cases = [line for line in lines if line.startswith("  with ")]
    assert cases[1].startswith("  with 1,500 colluders  ")
    assert "2,500 colluders and an honest-but-curious server  " in cases[2]
    assert len({line.rindex("  ") for line in cases}) == 1
