"""Memory: what a call takes on top of X, that nothing is left behind, and that mini-batches allocate nothing."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections import Counter

import numba
import numpy as np
import psutil
import pytest
from numba.core.runtime import _nrt_python, rtsys

from fastbp import SGD, Network, set_num_threads, training
from fastbp.engine import team

N, N_IN, N_OUT = 3000, 784, 10
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "backwards": lambda A: A[::-1].copy()[::-1],
}
CALLS = {
    "fit": lambda network, X, y: network.fit(X, y, batch_size=100, verbose=False),
    "fit, one mini-batch": lambda network, X, y: network.fit(X, y, batch_size=len(X), verbose=False),
    "partial_fit": lambda network, X, y: network.partial_fit(X, y),
    "predict": lambda network, X, y: network.predict(X),
    "predict_classes": lambda network, X, y: network.predict_classes(X),
    "activations": lambda network, X, y: network.activations(X),
    "loss": lambda network, X, y: network.loss(X, y),
    "accuracy": lambda network, X, y: network.accuracy(X, y),
    "gradients": lambda network, X, y: network.gradients(X, y),
}


@pytest.fixture(autouse=True)
def two_threads():
    """Each thread has buffers of its own: the bounds hold for two, whatever the machine has."""
    set_num_threads(2)
    yield
    set_num_threads(None)


def peak_of(call):
    """Return the largest number of bytes that a call holds at a time (NumPy tells tracemalloc of its arrays)."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module", params=["float32", "float64"])
def network(request):
    """Return a network that has trained and predicted, so that all is compiled and imported."""
    network = Network([N_IN, 30, N_OUT], output="softmax", dtype=request.param, seed=0)
    for call in CALLS.values():
        call(network, np.zeros((20, N_IN)), np.arange(20) % N_OUT)
    return network


@pytest.fixture(scope="module")
def labels():
    return np.arange(N) % N_OUT


DTYPES = ["float32", "float64", "float16", "uint8"]
CONVERTED = [  # all calls convert by the same function
    *(("fit", layout, dtype) for layout in LAYOUTS for dtype in DTYPES),
    *((call, "F", "uint8") for call in CALLS if call != "fit"),
]


@pytest.mark.parametrize(("call", "layout", "dtype"), CONVERTED, ids=map(" ".join, CONVERTED))
def test_an_X_that_must_be_converted_costs_little_more_than_its_copy(network, labels, call, layout, dtype):
    X = LAYOUTS[layout](np.zeros((N, N_IN), dtype))
    assert peak_of(lambda: CALLS[call](network, X, labels)) <= 1.2 * N * N_IN * network.dtype.itemsize


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_X_that_fits_costs_no_copy(network, labels, call):
    X = np.zeros((N, N_IN), network.dtype)
    X.flags.writeable = False
    assert peak_of(lambda: call(network, X, labels)) <= 0.2 * X.nbytes


@pytest.mark.parametrize("call", ["fit", "predict", "loss"])
def test_a_memmap_is_read_in_place(network, labels, call, tmp_path):
    (tmp_path / "X").write_bytes(bytes(N * N_IN * network.dtype.itemsize))
    X = np.memmap(tmp_path / "X", network.dtype, "r", shape=(N, N_IN))
    assert peak_of(lambda: CALLS[call](network, X, labels)) <= 0.2 * X.nbytes


def test_validation_data_is_converted_once(network, labels):
    X = np.zeros((100, N_IN), network.dtype)
    validation = np.zeros((N, N_IN), order="F")
    many = peak_of(lambda: network.fit(X, labels[:100], epochs=5, validation_data=(validation, labels), verbose=False))
    assert many <= 1.2 * N * N_IN * network.dtype.itemsize


# Whatever is kept for each sample and for each mini-batch, in bytes

SAMPLE = 60  # twice its place in the order (int64), its report; and as much again while arrays are made from arrays
MINIBATCH = 400  # its rows in the tables of starts, steps and reports, as arrays and while they are read
BUFFERS = 500_000  # activations, deltas and packed parameters of a small network, code objects


@pytest.mark.parametrize("call", [name for name in CALLS if name != "activations"])
def test_samples_cost_little_beside_their_inputs(call):
    """Narrow inputs show what is kept for each sample."""
    network, n = Network([2, 3, 2], output="softmax", seed=0), 100_000
    X, y = np.zeros((n, 2), np.float32), np.zeros(n, np.int64)
    CALLS[call](network, X[:100], y[:100])
    assert peak_of(lambda: CALLS[call](network, X, y)) <= SAMPLE * n + MINIBATCH * n / 32 + BUFFERS


def test_tables_of_mini_batches_end_with_their_chunk(monkeypatch):
    network, n = Network([2, 3, 2], output="softmax", seed=0), 20_000
    X, y = np.zeros((n, 2), np.float32), np.zeros(n, np.int64)

    def peak(limit):
        monkeypatch.setattr(training, "CHUNK_MINIBATCHES", limit)
        return peak_of(lambda: network.fit(X, y, batch_size=1, optimizer=SGD(0.1), verbose=False))

    peak(100)
    assert peak(100) <= SAMPLE * n + MINIBATCH * 100 + BUFFERS
    assert peak(n) <= SAMPLE * n + MINIBATCH * n + BUFFERS


@pytest.mark.parametrize("epochs", [200, 2000])
def test_many_epochs_of_a_small_set_are_not_laid_out_all_at_once(epochs):
    """A small network and one mini-batch an epoch: an epoch is hardly any work, but has an order of all samples."""
    network, n = Network([1, 1], seed=0), 2000
    X, y = np.zeros((n, 1), np.float32), np.zeros(n)
    network.fit(X, y, batch_size=n, verbose=False)
    bound = 8_000_000 + 200 * epochs  # a few hundred orders at a time; the history's floats
    assert peak_of(lambda: network.fit(X, y, epochs=epochs, batch_size=n, verbose=False)) <= bound


# Nothing is left behind


@pytest.mark.hazard("memory", "calls leave nothing behind")
def test_fits_leave_nothing_behind(network, labels):
    X = np.zeros((500, N_IN), network.dtype, order="F")
    y = labels[:500]

    def work(times):
        for _ in range(times):
            for call in CALLS.values():
                call(network, X, y)

    tracemalloc.start()
    try:
        work(2)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work(15)
        gc.collect()
        # CPython keeps some small objects for reuse; a copy of X alone would be a megabyte and more each time
        assert tracemalloc.get_traced_memory()[0] - before <= 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.hazard("memory", "networks leave nothing behind")
def test_networks_leave_nothing_behind():
    """As many sizes as a search over architectures makes; what is remembered of each is small."""

    def work(widths):
        for width in widths:
            network = Network([50, width, 10], output="softmax", seed=0)
            network.fit(np.zeros((20, 50)), np.zeros(20, int), verbose=False)
            network.predict(np.zeros((20, 50)))

    work(range(400, 410))
    tracemalloc.start()
    try:
        work(range(100, 110))
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work(range(200, 300))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before <= 400_000, "bytes; a network holds 100 000 and more"
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS keeps what is freed as the process's for a while")
def test_the_process_does_not_grow(network):
    """What tracemalloc cannot see: one fit has buffers of some 7 MB, so that 40 would show."""
    X = np.zeros((2000, N_IN), np.float32, order="F")
    y = np.zeros((2000, N_OUT))
    y[:, 0] = 1

    def work(times):
        for _ in range(times):
            network.fit(X, y, batch_size=2000, verbose=False)

    work(5)
    gc.collect()
    before = psutil.Process().memory_info().rss
    work(40)
    gc.collect()
    assert psutil.Process().memory_info().rss - before <= 60_000_000


SHAPES = """
    import gc, psutil

    rng, process = np.random.default_rng(0), psutil.Process()

    def train(times):
        for _ in range(times):
            sizes = [int(n) for n in rng.integers(1, 60, rng.integers(2, 5))]
            n, batch_size = rng.integers(1, 40, 2)
            network = fastbp.Network(sizes, output="sigmoid", seed=0)
            X, y = rng.random((n, sizes[0]), np.float32), rng.random((n, sizes[-1]), np.float32)
            options = dict(batch_size=int(batch_size), optimizer=["adam", "sgd"][n % 2], n_threads=1 + int(n % 8 == 0))
            network.fit(X, y, verbose=False, **options)

    train(1500)  # what is made once: code, memory of threads, the layouts that are remembered
    fits, rss = [], []
    for i in range(41):
        fits.append(i * 250)
        gc.collect()
        rss.append(process.memory_info().rss)
        train(250 if i < 40 else 0)
    slope = np.polyfit(fits, rss, 1)[0]
    # a network and a run of these sizes take 30 000 bytes and more; a fragment of the heap may come or go
    cases.count(10_000, 10_000 if slope < 200 else 0, f"{slope:.1f} bytes a fit: {rss}")
    cases.remark(f"RSS {slope:+.2f} bytes a fit, {(rss[-1] - rss[0]) / 1024:+.0f} KiB in all")
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS keeps what is freed as the process's for a while")
@pytest.mark.hazard("memory", "10 000 fits of random shapes do not make the process grow")
def test_ten_thousand_fits(cases, tmp_path):
    cases.count_in_child(tmp_path, SHAPES)


@pytest.mark.hazard("memory", "the buffers of a fit are freed when it ends")
def test_buffers_are_freed_after_a_fit(cases):
    """Neither the network nor a thread keeps one, and none waits for the garbage collector."""
    X, y = np.zeros((2000, N_IN), np.float32, order="F"), np.zeros(2000, int)
    for n_threads in 1, 2:
        for batch_size in 10, 2000:
            network = Network([N_IN, 300, N_OUT], output="softmax", seed=0)
            network.fit(X, y, batch_size=batch_size, verbose=False, n_threads=n_threads)
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(3):
                    network.fit(X, y, batch_size=batch_size, verbose=False, n_threads=n_threads)
                with cases.one((n_threads, batch_size)):
                    # its weights and the optimizer's two slots, new now, were not traced when they replaced the old
                    kept = 3 * sum(array.nbytes for array in (*network.weights, *network.biases))
                    assert tracemalloc.get_traced_memory()[0] - before <= 1.1 * kept
            finally:
                tracemalloc.stop()
                gc.enable()


class Marker:
    """What a caller has at hand."""


@pytest.mark.hazard("memory", "an interrupted call keeps nothing of its caller")
@pytest.mark.parametrize("is_long", [True, False])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupted_call_keeps_nothing(cases, network, labels, monkeypatch, call, is_long):
    """Not even until the garbage collector comes: while that frees what has callbacks, Python forgets a Ctrl-C."""
    X = np.zeros((N, N_IN), network.dtype)
    for module in "run", "evaluation":
        monkeypatch.setattr(f"fastbp.engine.{module}.run_team", lambda *args, **options: (0, KeyboardInterrupt("now")))
    monkeypatch.setattr("fastbp.engine.run.WORK_IN_CALLER", 0)
    monkeypatch.setattr("fastbp.engine.evaluation.WORK_PER_INTERRUPT", 1 if is_long else 10**12)

    def interrupted():
        marker = Marker()
        try:
            call(network, X, labels)
        except KeyboardInterrupt:
            return weakref.ref(marker)
        raise AssertionError("it was not interrupted")

    gc.collect()
    gc.disable()
    try:
        with cases.one(is_long):
            assert interrupted()() is None
    finally:
        gc.enable()


# Mini-batches allocate nothing


@pytest.fixture
def calls_of(monkeypatch):
    """Return a function that counts what Python calls, the caller and its teams, while a function runs."""

    def count(function):
        counts: Counter[str] = Counter()

        def profile(frame, event, argument):
            counts[event] += 1

        def profiled(worker, *arguments):
            sys.setprofile(profile)
            run(worker, *arguments)

        run = team._Worker._run
        with monkeypatch.context() as patch:
            patch.setattr(team._Worker, "_run", profiled)
            sys.setprofile(profile)
            try:
                function()
            finally:
                sys.setprofile(None)
        return counts

    return count


@pytest.mark.hazard("memory", "mini-batches call no Python")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("form", "large", "small"), [("all_wide", 100, 1), ("all_narrow", 1000, 10)])
def test_mini_batches_call_no_python(calls_of, form, large, small, dtype, n_threads, monkeypatch, request):
    """A hundred times as many of them make as many calls: none comes back from the kernel, none makes an array."""
    request.getfixturevalue(form)
    network, n = Network([5, 7, 3], output="softmax", seed=0, dtype=dtype), 1000
    X, y = np.zeros((n, 5), dtype), np.zeros(n, np.int64)

    def fit(batch_size):
        network.fit(X, y, batch_size=batch_size, optimizer=SGD(0.1), verbose=False, n_threads=n_threads)

    monkeypatch.setattr(team, "_GLANCE", 60.0)  # else the caller looks again and again, the longer it takes
    fit(large)
    few, many = calls_of(lambda: fit(large)), calls_of(lambda: fit(small))
    assert few["call"] > 10, "it counts"
    assert many.total() <= few.total() + 50, "whether a thread is awaited may differ by a call or two"


@numba.njit
def allocating(n):
    total = 0.0
    for i in range(n):
        total += np.full(100 + i, 1.0)[i]
    return total


@pytest.mark.hazard("memory", "kernels allocate nothing")
def test_kernels_allocate_nothing():
    """Numba's runtime counts the arrays that compiled code makes."""
    allocating(1)
    network = Network([5, 40, 3], hidden="relu", output="softmax", seed=0)
    X, y = np.ones((1500, 5), np.float32), np.arange(1500) % 3
    for call in CALLS.values():
        call(network, X, y)

    def allocations(call):
        before = rtsys.get_allocation_stats()
        call()
        after = rtsys.get_allocation_stats()
        return after.alloc - before.alloc

    was_enabled = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        assert allocations(lambda: allocating(10)) >= 10, "it counts"
        for call in CALLS.values():
            once = allocations(lambda call=call: call(network, X[:200], y[:200]))
            often = allocations(lambda call=call: call(network, X, y))
            assert often <= once, "what Numba makes of arguments is as much for any number of mini-batches"
    finally:
        if not was_enabled:
            _nrt_python.memsys_disable_stats()
