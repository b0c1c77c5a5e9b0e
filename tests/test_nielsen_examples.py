"""The examples after the book run, alone and without a terminal, and give what they promise."""

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

# What each prints, as regular expressions in this order, the pictures it writes, and whether it needs MNIST.
EXPECTED: dict[str, tuple[list[str], set[str], bool]] = {
    "nielsen_first_session": (
        [r"^Epoch 0: 8\d\d\d / 10000\n", r"\nEpoch 29: 95\d\d / 10000\nEpoch 0: ", r"\nEpoch 9: \d{4} / 10000\n$"],
        set(),
        True,
    ),
    "nielsen_slow_learning": (
        [
            r"good start: output 0\.82, dC/dw 0\.122 \(quadratic\), 0\.818 \(cross-entropy\)",
            r"bad start: output 0\.98, dC/dw 0\.017 \(quadratic\), 0\.982 \(cross-entropy\)",
            r"quadratic cost, good start: output 0\.09",  # the book's figures
            r"quadratic cost, bad start: output 0\.20",
            r"cross-entropy, good start: output 0\.42",
            r"cross-entropy, bad start: output 0\.78",
        ],
        {"nielsen_slow_learning.png"},
        False,
    ),
    "nielsen_overfitting": (
        [
            r"test cost: 1\.63705 .* book's \de-1\d\n",
            r"test accuracy: 8190 .* book's 0e\+00\n",
            r"training cost: 0\.009766\d* .* book's \de-1\d\n",
            r"training accuracy: 1000 .* book's 0e\+00\n",
            r"test accuracy: 82\.01 % without, 86\.\d+ % with regularisation",
        ],
        {"nielsen_overfitting.png"},
        True,
    ),
    "nielsen_vanishing_gradient": (
        [
            r"2 hidden layers, epoch 0: [^ ]+ [^ ]+, the last is 5 times",
            r"3 hidden layers, epoch 0: .*, the last is 28 times",
            r"4 hidden layers, epoch 0: .*, the last is 142 times",
            r"4 hidden layers, epoch 199: .*, the last is \d\d times",
        ],
        {"nielsen_vanishing_gradient.png"},
        False,
    ),
    "nielsen_backpropagation": (
        [
            "BP1",
            "BP2",
            "BP4",
            r"shapes of dC/dw: \[\(12, 64\), \(8, 12\), \(10, 8\)\]",
            r"backprop: (0\.0e\+00|\d\.\de-1[5-9])\n",
            r"slopes: \d\.\de-1\d\n",
        ],
        set(),
        False,
    ),
}

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no folder examples/ beside tests/")


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    lines, pictures, needs_mnist = EXPECTED[name]
    if needs_mnist and "FASTBP_DATA" not in os.environ:
        pytest.skip("the environment variable FASTBP_DATA does not name a folder with MNIST")
    if pictures:
        pytest.importorskip("matplotlib")
    (tmp_path / "pictures").mkdir()
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "pictures"],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=tmp_path,
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
    assert {path.stem for path in EXAMPLES.glob("nielsen_*.py")} == set(EXPECTED)


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


def test_the_first_session_is_the_books() -> None:
    """Word for word but for the imports: the five statements of chapter 1, in their order."""
    tree = ast.parse((EXAMPLES / "nielsen_first_session.py").read_text(encoding="utf-8"))
    statements = [ast.unparse(node) for node in tree.body]
    session = [
        "from fastbp.nielsen import mnist_loader",
        "training_data, validation_data, test_data = mnist_loader.load_data_wrapper()",
        "from fastbp.nielsen import network",
        "net = network.Network([784, 30, 10])",
        "net.SGD(training_data, 30, 10, 3.0, test_data=test_data)",
    ]
    begin = statements.index(session[0])
    got = [
        statement.replace(
            "(training_data, validation_data, test_data) =", "training_data, validation_data, test_data ="
        )
        for statement in statements
    ]
    assert got[begin : begin + 5] == session
