"""The examples run, alone and without a terminal, and give what they promise."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TIMEOUT = 300  # seconds, for a child that hangs; compiling included
PNG = b"\x89PNG\r\n\x1a\n"

# What each prints, as regular expressions in this order, and the pictures it writes.
EXPECTED: dict[str, tuple[list[str], set[str]]] = {
    "worked_example": (
        [
            r"hidden 0: z = 0\.15 x 0\.05\d* \+ 0\.20 x 0\.10\d* \+ 0\.35 = 0\.377500000, a = 0\.593269992",
            r"output 1: z = .* = 1\.224921404, a = 0\.772928465",
            r"0\.274811083 \+ 0\.023560026 = 0\.298371109",
            r"dC/dw_00 =  0\.741365070 x 0\.186815602 x 0\.593269992 =  0\.082167041",
            r"dC/dw_00 = \(0\.138498562 x 0\.40 \+ -0\.038098237 x 0\.50\) x 0\.241300709 x 0\.05 = 0\.000438568",
            r"hidden w_11: .* = 0\.29950229  \(network: 0\.29950229\)",
            r"output w_00: .* = 0\.35891648  \(network: 0\.35891648\)",
            r"error after 1 step: 0\.291027774",
            r"Error after 10 000 steps: 3\.5102e-05",
            r"Outputs: 0\.0159136 0\.9840643",
        ],
        set(),
    ),
    "digits_classifier": (
        [r"1150 images to train, 288 to validate, 359 to test", r"test accuracy 9\d\.\d%", r"\d+ errors, \d+ of them"],
        {"digits_learning_curve.png", "digits_confusion.png"},
    ),
    "regression": (
        [
            r"straight line +0\.1",
            r"cubic +0\.1",
            r"network +0\.02",  # the variance of the noise is 0.0225
            r"the true curve +0\.02",
        ],
        {"regression.png"},
    ),
    "autoencoder": (
        [r"mean image alone +0\.07", r"principal components +0\.02", r"autoencoder +0\.01", r"code of the first 0: \["],
        {"autoencoder.png"},
    ),
    "compare_with_sklearn": (
        [
            r"1347 images to train, 450 to test",
            r"defaults .* times\)  test accuracy 9(\d\.\d)% and 9\1%  coefficients within \de-1[0-6]\n",
            r"small batches .* coefficients within \de-(0[89]|1[0-6])\n",
            r"sgd .* coefficients within \de-(0[89]|1[0-6])\n",
            r"lbfgs .* coefficients within \de-(0[4-9]|1[0-6])\n",
        ],
        {"compare_with_sklearn.png"},
    ),
    "grid_search_on_dask": (
        [
            r"36 trainings in 2 processes; any in this one: False\n",
            r"threads of a training: 1\n",
            r"largest difference of an accuracy from the local search's: 0\.0\n",
            r"the same best weights, to the bit: True\n",
            r"accuracy on the held-out images: 9\d\.\d%",
        ],
        set(),
    ),
    "first_layer_weights": (
        [r"test accuracy 9\d\.\d%", r"3 pixels are blank in all training images; their weights moved by 0\.0\n"],
        {"first_layer_start.png", "first_layer_trained.png"},
    ),
}

NEEDS = {"compare_with_sklearn": "sklearn", "grid_search_on_dask": "distributed"}

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no folder examples/ beside tests/")


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    lines, pictures = EXPECTED[name]
    if pictures:
        pytest.importorskip("matplotlib")
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    (tmp_path / "pictures").mkdir()
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "pictures"],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # products so small that threads get into each other's way
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = re.search(".*".join(f"(?:{line})" for line in lines), result.stdout, re.DOTALL)
    assert found, result.stdout
    assert "Warning" not in result.stderr
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == pictures
    for path in (tmp_path / "pictures").iterdir():
        assert path.read_bytes()[:8] == PNG
        assert path.stat().st_size > 5_000
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_every_example_is_tested() -> None:
    found = {path.stem for path in EXAMPLES.glob("*.py")}
    assert {name for name in found if not name.startswith("nielsen_")} == set(EXPECTED)  # see test_nielsen_examples.py


@pytest.mark.parametrize("name", EXPECTED)
def test_example_is_in_gallery_style(name: str) -> None:
    """A title underlined and a paragraph of why; then blocks that open with one."""
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    title, underline, blank, why, *_ = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    assert underline == "=" * len(title)
    assert blank == ""
    assert why
    blocks = source.split("\n# %%\n")[1:]
    assert len(blocks) >= 3
    assert all(block.startswith("# ") for block in blocks)
