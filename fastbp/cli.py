"""Command line: `fastbp demo` shows what fastbp does, `fastbp warmup` compiles it before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fastbp import __version__, demo
from fastbp.architecture import DTYPES
from fastbp.kernels import _jit
from fastbp.network import Network

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 where something the user can mend is in the way; one line on stderr then says what.

    Raises
    ------
    SystemExit
        After --help and --version with code 0, after wrong arguments with code 2.

    Examples
    --------
    >>> from fastbp.cli import main
    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # as in `fastbp demo | head`: what Python writes at its end has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastbp", description="Dense neural networks trained by backpropagation on a CPU, fast."
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    show = commands.add_parser(
        "demo",
        help="train networks on handwritten digits, and compare them with NumPy",
        description="Train networks on handwritten digits; print how exactly, how well and how fast they learn, beside "
        "the same equations in NumPy. With matplotlib installed, draw their learning curves and first-layer weights.",
    )
    show.add_argument(
        "--data", choices=list(demo.CASES), default="digits", help="default: %(default)s, the shipped ones"
    )
    show.add_argument("--epochs", type=_at_least(1), default=30, metavar="N", help="default: %(default)s")
    show.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="default: %(default)s")
    show.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="for the pictures; default: the current folder"
    )
    show.add_argument(
        "--threads", type=_at_least(1), metavar="N", help="threads that compute; default: as many as the work repays"
    )
    show.set_defaults(command=_demo)

    warm = commands.add_parser(
        "warmup",
        help="compile the kernels and store them on disk",
        description="Compile the kernels for float32 and float64 and store them on disk, as their first use would do: "
        "for an image of a container, or before time is measured.",
    )
    warm.set_defaults(command=_warm_up)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least {least}")
        return number

    return whole


def _demo(arguments: argparse.Namespace) -> int:
    try:
        samples = demo.load(arguments.data, arguments.seed)
    except ValueError as error:  # a damaged file
        return _refuse(error)
    demo.run(
        samples,
        epochs=arguments.epochs,
        seed=arguments.seed,
        output=arguments.output,
        n_threads=arguments.threads,
    )
    return 0


def _warm_up(arguments: argparse.Namespace) -> int:
    del arguments
    for dtype in DTYPES:
        before = _jit.counts.copy()
        began = time.perf_counter()
        X, y = [[0.0]] * 64, [0.0] * 64  # mini-batches enough to be shuffled
        for n_hidden in 1, 100:  # a narrow network and a wide one
            network = Network([1, n_hidden, 1], dtype=dtype, seed=0)
            network.fit(X, y, verbose=False)
            network.predict(X)
        seconds = time.perf_counter() - began
        new = _jit.counts - before
        what = "compiled" if new["compiled"] else "loaded from disk" if new["loaded"] else "in memory already"
        print(f"{dtype}: {what}, {seconds:.2f} s", flush=True)
    folder = _jit.cache_folder()
    print(f"stored in {folder}" if folder else "not stored: no folder can be written to; set FASTBP_CACHE_DIR to one")
    return 0


def _refuse(error: Exception) -> int:
    print(f"fastbp: {error}", file=sys.stderr)
    return 2
