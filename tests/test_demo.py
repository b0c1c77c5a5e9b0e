"""The demo: its figures are what the networks really do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastbp import demo
from fastbp.datasets import Mnist

TIMEOUT = 300  # seconds, for a child that hangs
PNG = b"\x89PNG\r\n\x1a\n"
PICTURES = {
    f"digits-{sizes}-{what}.png"
    for sizes in ("64-30-10", "64-64-32-10")
    for what in ("learning-curve", "first-layer-weights")
}


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def results(out: str) -> list[tuple[float, int, int, np.ndarray]]:
    """Return (accuracy in percent, right, of, confusion table) of each network."""
    blocks = re.findall(
        r"^test accuracy ([\d.]+)% \((\d+) of (\d+)\) after .*\ntaken for +0 +1 .*\n((?:digit \d .*\n){10})", out, re.M
    )
    return [
        (
            float(share),
            int(right),
            int(n),
            np.array([[int(cell.replace(".", "0")) for cell in row.split()[2:]] for row in table.splitlines()]),
        )
        for share, right, n, table in blocks
    ]


def without_times(out: str) -> str:
    return re.sub(r"trained in .*", "", out.partition("Time of an epoch")[0].partition("\n")[2])


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    samples = demo.load("digits")
    demo.run(samples, epochs=30, output=tmp_path / "new" / "folder")
    out, err = capsys.readouterr()
    assert len(out.splitlines()) < 60
    assert max(map(len, out.splitlines())) <= 110 + len(str(tmp_path))
    assert "%|" not in err  # no bar without a terminal

    learned = results(out)
    assert len(learned) == 2
    for share, right, n, table in learned:
        assert n == len(samples.X_test) == table.sum()
        np.testing.assert_array_equal(table.sum(axis=1), np.bincount(samples.y_test))
        assert right == np.trace(table)
        assert share == round(100 * right / n, 1)
        assert share > 94

    differences = re.findall(r"^\[[\d, ]+\] +(\d.\de-\d+) +(\d.\de-\d+)$", out, re.M)
    assert len(differences) == 2
    for double, single in differences:
        assert 0 < float(double) < 1e-13  # ten steps in float64, whose spacing at 1 is 2e-16; 0 would be no comparison
        assert float(double) < float(single) < 1e-4

    times = re.findall(r"^(fastbp|NumPy, [a-z ]+?) +(\d+\.\d\d) ms.* (\d+\.\d\d) ms", out, re.M)
    assert [name for name, *_ in times] == ["fastbp", *demo.FORMS]
    assert all(float(time) > 0 for _, *row in times for time in row)

    written = sorted((tmp_path / "new" / "folder").iterdir())
    assert {path.name for path in written} == PICTURES
    for path in written:
        assert path.read_bytes()[:8] == PNG
        assert f"wrote {path}" in out


def test_threads_change_times_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ROUNDS", 1)
    samples = demo.load("digits", seed=3)
    printed = []
    for n_threads in 1, 2:
        demo.run(samples, epochs=2, seed=3, n_threads=n_threads)
        printed.append(capsys.readouterr().out)
        assert f"threads: {n_threads}\n" in printed[-1]
    assert without_times(printed[0]) == without_times(printed[1])
    demo.run(samples, epochs=2, seed=4)
    assert without_times(capsys.readouterr().out) != without_times(printed[0])


def test_part_of_an_epoch_is_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is scaled is said to be."""
    monkeypatch.setattr(demo, "ROUNDS", 1)
    samples = demo.load("digits")
    demo.run(samples, epochs=1)
    assert "scaled" not in capsys.readouterr().out
    monkeypatch.setattr(demo, "TIMED", 20)
    demo.run(samples, epochs=1)
    out = capsys.readouterr().out
    assert "[64, 30, 10] sample by sample was timed on 20 of 144 mini-batches, and scaled" in out
    assert "[64, 64, 32, 10] sample by sample was timed on 20 of 45 mini-batches, and scaled" in out


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROUNDS", 1)
    demo.run(demo.load("digits"), epochs=1, output=tmp_path)
    assert capsys.readouterr().out.endswith(
        "No pictures: fastbp.plotting needs matplotlib: pip install 'fastbp[plot]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_output_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "ROUNDS", 1)
    demo.run(demo.load("digits"), epochs=1)
    assert "picture" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path: Path) -> None:
    """`python -m fastbp demo` from another folder, without a terminal: pictures go there."""
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "fastbp", "demo", "--epochs", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(results(result.stdout)) == 2
    assert "%|" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == PICTURES
    for path in tmp_path.iterdir():
        assert path.read_bytes()[:8] == PNG


def test_mnist(
    mnist: Mnist, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ROUNDS", 1)
    samples = demo.load("mnist")
    demo.run(samples, epochs=1, output=tmp_path)
    out = capsys.readouterr().out
    ((share, right, n, table),) = results(out)
    assert n == len(mnist.y_test) == table.sum()
    assert right == np.trace(table)
    assert share > 85
    assert "[784, 30, 10] sample by sample was timed on 200 of 6000 mini-batches, and scaled" in out


@pytest.mark.parametrize("name", list(demo.CASES))
def test_cases_are_those_of_the_data(name: str) -> None:
    for case in demo.CASES[name]:
        assert case.sizes[0] == {"digits": 64, "mnist": 784}[name]
        assert case.sizes[-1] == 10
        start, again = case.network(5), case.network(5, "float64")
        for w, w_again in zip(start.weights, again.weights, strict=True):
            assert (w.dtype, w_again.dtype) == (np.float32, np.float64)
            np.testing.assert_array_equal(w, w_again)
