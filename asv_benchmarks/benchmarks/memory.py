"""Memory: the most that a process holds while it trains, predicts or differentiates, its samples and NumPy included."""

from __future__ import annotations

from .common import FIT, GRADIENTS, IMPLEMENTATIONS, PREDICT, WORKS, assert_ten_steps_equal, fast_or_full


class Memory:
    """Peak of the process; `baseline` is what the samples and the imports hold alone."""

    params = (IMPLEMENTATIONS, fast_or_full(["784-512-512-10"], list(WORKS)))
    param_names = ("implementation", "work")
    timeout = 600

    def setup(self, implementation: str, work: str) -> None:
        assert_ten_steps_equal(WORKS[work])
        self.samples = WORKS[work].samples()

    def peakmem_baseline(self, implementation: str, work: str) -> None:
        pass

    def peakmem_fit(self, implementation: str, work: str) -> None:
        FIT[implementation](WORKS[work], *self.samples)()

    def peakmem_predict(self, implementation: str, work: str) -> None:
        PREDICT[implementation](WORKS[work], self.samples[0])()

    def peakmem_gradients(self, implementation: str, work: str) -> None:
        GRADIENTS[implementation](WORKS[work], *self.samples)()
