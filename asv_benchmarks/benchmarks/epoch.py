"""Epoch: once through the samples, with all that a call of `fit` does; over the table and over one number at a time."""

from __future__ import annotations

from fastbp import get_num_threads

from .common import FIT, IMPLEMENTATIONS, WORKS, Timed, Work, assert_ten_steps_equal, fast_or_full, varied


class Epoch(Timed):
    """The works of the table that the peers are measured on."""

    params = (IMPLEMENTATIONS, tuple(WORKS), fast_or_full(["float32"], ["float32", "float64"]))
    param_names = ("implementation", "work", "dtype")

    def setup(self, implementation: str, work: str, dtype: str) -> None:
        assert_ten_steps_equal(WORKS[work], dtype)
        self.fit = FIT[implementation](WORKS[work], *WORKS[work].samples(dtype=dtype))

    def time_fit(self, implementation: str, work: str, dtype: str) -> None:
        self.fit()


class _Varied(Timed):
    """One number of a common work is varied."""

    def prepare(self, implementation: str, work: Work, n_threads: int | None = None) -> None:
        """Check that both are equal, then make the one that is timed."""
        assert_ten_steps_equal(work)
        self.fit = FIT[implementation](work, *work.samples(), n_threads)


class Width(_Varied):
    """Neurons of the hidden layer."""

    params = (IMPLEMENTATIONS, fast_or_full([8, 128, 1024], [8, 16, 30, 32, 64, 100, 128, 256, 512, 1024, 2048]))
    param_names = ("implementation", "width")

    def setup(self, implementation: str, width: int) -> None:
        self.prepare(implementation, varied(sizes=(256, width, 10)))

    def time_fit(self, implementation: str, width: int) -> None:
        self.fit()


class Depth(_Varied):
    """Hidden layers."""

    params = (IMPLEMENTATIONS, fast_or_full([1, 4], [0, 1, 2, 3, 4, 8]))
    param_names = ("implementation", "depth")

    def setup(self, implementation: str, depth: int) -> None:
        self.prepare(implementation, varied(sizes=(256, *(64,) * depth, 10)))

    def time_fit(self, implementation: str, depth: int) -> None:
        self.fit()


class Batch(_Varied):
    """Samples in a mini-batch."""

    params = (IMPLEMENTATIONS, fast_or_full([10, 1000], [1, 10, 32, 100, 128, 500, 1000, 3000]))
    param_names = ("implementation", "batch_size")

    def setup(self, implementation: str, batch_size: int) -> None:
        self.prepare(implementation, varied(batch_size=batch_size, n=12_000))

    def time_fit(self, implementation: str, batch_size: int) -> None:
        self.fit()


class Rows(_Varied):
    """Samples of the training set: below some hundreds, what a call costs once."""

    params = (IMPLEMENTATIONS, fast_or_full([100, 10_000], [10, 100, 1000, 10_000, 100_000]))
    param_names = ("implementation", "rows")

    def setup(self, implementation: str, rows: int) -> None:
        self.prepare(implementation, varied(n=rows))

    def time_fit(self, implementation: str, rows: int) -> None:
        self.fit()


class Threads(_Varied):
    """Threads: those that fastbp chooses (0), and numbers of the user's; NumPy takes what it wants."""

    params = (IMPLEMENTATIONS, tuple(sorted({0, 1, 2, *fast_or_full([], [get_num_threads()])})))
    param_names = ("implementation", "n_threads")

    def setup(self, implementation: str, n_threads: int) -> None:
        self.prepare(implementation, varied(), n_threads or None)

    def time_fit(self, implementation: str, n_threads: int) -> None:
        self.fit()
