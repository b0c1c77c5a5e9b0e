"""The command line: what it runs, what it says, and its exit codes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import fastbp
from fastbp import demo
from fastbp.cli import main
from fastbp.kernels import _jit

TIMEOUT = 300  # seconds, for a child that hangs
MNIST_FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastbp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, **options)  # type: ignore[call-overload]


@pytest.fixture
def no_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no data set be found where a user may keep one."""
    monkeypatch.delenv("FASTBP_DATA", raising=False)
    for name in "HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA":
        monkeypatch.setenv(name, str(tmp_path))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"fastbp {fastbp.__version__}\n"


def test_module(tmp_path: Path) -> None:
    result = run("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"fastbp {fastbp.__version__}\n", "")


def test_console_script(tmp_path: Path) -> None:
    script = shutil.which("fastbp", path=sysconfig.get_path("scripts"))
    if script is None:
        pytest.skip("no console script beside this interpreter: fastbp is on its path, but not installed")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"fastbp {fastbp.__version__}\n")


@pytest.mark.parametrize("command", [[], ["demo"], ["warmup"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: fastbp", *command]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["demonstrate"], "invalid choice: 'demonstrate'"),
        (["demo", "--data", "cifar"], "invalid choice: 'cifar'"),
        (["demo", "--epochs", "0"], "argument --epochs: '0' must be an integer of at least 1"),
        (["demo", "--epochs", "two"], "argument --epochs: 'two' must be an integer of at least 1"),
        (["demo", "--seed", "-1"], "argument --seed: '-1' must be an integer of at least 0"),
        (["demo", "--threads", "0"], "argument --threads: '0' must be an integer of at least 1"),
        (["warmup", "--epochs", "1"], "unrecognized arguments: --epochs 1"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_demo_gets_its_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr(demo, "run", lambda samples, **options: calls.append((samples.name, options)))
    arguments = ["demo", "--epochs", "3", "--seed", "7", "--threads", "2", "--output", str(tmp_path / "new")]
    assert main(arguments) == 0
    assert main(["demo"]) == 0
    assert calls == [
        ("digits", {"epochs": 3, "seed": 7, "n_threads": 2, "output": tmp_path / "new"}),
        ("digits", {"epochs": 30, "seed": 0, "n_threads": None, "output": Path()}),
    ]


@pytest.mark.usefixtures("no_cache_folder")
def test_mnist_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path / "nowhere"))
    assert main(["demo", "--data", "mnist"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastbp: MNIST's files were not found in ")
    assert err.count("\n") == 1
    assert str(tmp_path / "nowhere") in err
    assert "FASTBP_DATA" in err


@pytest.mark.usefixtures("no_cache_folder")
def test_mnist_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in MNIST_FILES:
        (tmp_path / name).write_bytes(b"<html>")
    monkeypatch.setenv("FASTBP_DATA", str(tmp_path))
    assert main(["demo", "--data", "mnist"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastbp: .*ubyte is no IDX file.*\n", err)


def test_output_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    out, err = capsys.readouterr()
    assert out == ""  # said before any work
    assert err.startswith("fastbp: ")
    assert err.count("\n") == 1


def failing(error: BaseException) -> Callable[..., None]:
    def run(*arguments: object, **options: object) -> None:
        raise error

    return run


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run", failing(KeyboardInterrupt()))
    assert main(["demo"]) == 130


def test_defect_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a user can mend is put into one line."""
    monkeypatch.setattr(demo, "run", failing(ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        main(["demo"])


@pytest.mark.hazard("cache", "warmup fills the cache, says what it did and how long it took")
def test_warmup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert main(["warmup"]) == 0
    second = capsys.readouterr().out.splitlines()
    how = r"(compiled|loaded from disk|in memory already), \d+\.\d\d s"
    for dtype, line in zip(["float32", "float64"], first[:2], strict=True):
        assert re.fullmatch(rf"{dtype}: {how}", line)
    assert [line.split(",")[0] for line in second[:2]] == ["float32: in memory already", "float64: in memory already"]
    assert first[2:] == second[2:] == [f"stored in {_jit.cache_folder()}"]


@pytest.mark.hazard("cache", "warmup fills the cache, says what it did and how long it took")
def test_warmup_without_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_jit, "cache_folder", lambda: None)
    assert main(["warmup"]) == 0
    assert "FASTBP_CACHE_DIR" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.hazard("cache", "warmup fills the cache, says what it did and how long it took")
def test_warmup_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    assert main(["warmup"]) == 0
    result = run("warmup", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    assert [line.split(",")[0] for line in result.stdout.splitlines()[:2]] == [
        "float32: loaded from disk",
        "float64: loaded from disk",
    ]


@pytest.mark.slow
def test_warmup_compiles_into_an_empty_folder(tmp_path: Path) -> None:
    result = run("warmup", cwd=tmp_path, env={**os.environ, "FASTBP_CACHE_DIR": str(tmp_path / "cache")})
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["float32: compiled", "float64: compiled"]
    folder = Path(lines[2].removeprefix("stored in "))
    assert folder.is_relative_to(tmp_path / "cache")
    entries = [path.name.partition("-")[0] for path in folder.glob("*.entry")]
    assert sorted(entries) == sorted(["train", "train_narrow", "evaluate"] * 2 + ["shuffle"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe otherwise")
def test_reader_goes_away(tmp_path: Path) -> None:
    """As in `fastbp warmup | head -0`."""
    command = [sys.executable, "-m", "fastbp", "warmup"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        assert child.stdout is not None
        child.stdout.close()
        _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 1
    assert "Error" not in err
