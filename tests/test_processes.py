"""Processes: forks at any moment, and pools of every kind, whose children train to the bits of the parent."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest
from candidates import KINDS, result, trained
from cases import Cases

forks = pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
# Python 3.12 and later warn of a fork where there are threads: that is the hazard itself
WARNED = ("-W", "error", "-W", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def wanted() -> list[str]:
    """Return the results of this process; its machine code is then on disk for all others."""
    return [result(i) for i in range(KINDS)]


FORKS = """
from candidates import candidate, result
from fastbp.engine.cores import share_of

wanted = WANTED

def fork(work, generations=1):
    '''Start a child, and it another; return its id.'''
    child = os.fork()
    if child == 0:
        watch()
        status = 1
        try:
            work()
            if generations > 1:
                wait(fork(work, generations - 1), 'a grandchild')
            status = 0
        except BaseException:  # nothing may run on in the child as if it were the parent
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    return child

def wait(child, what):
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f'{what}: ended with {status}'

def same(i, n_threads=2):
    '''A training has the bits that it has elsewhere.'''
    assert result(i, n_threads) == wanted[i]
"""

LIVES = """
with cases.one('before'):  # nothing was called in this process
    wait(fork(lambda: same(0), 2), 'before')
same(0)
for i in range(6):
    with cases.one(f'after, {i}'):
        wait(fork(lambda: same(i), 2), 'after')

# during another thread's fits
network, X, y, options = candidate(7)
other, stopped, started = candidate(8)[0], threading.Event(), threading.Event()
first = [w.tobytes() for w in network.weights]

class Watch(fastbp.Callback):
    def on_epoch_end(self, state):
        state.stop = stopped.is_set()
        started.set()

big = np.tile(X, (40, 1)), np.tile(y, 40)  # so that drawing the order takes its time
thread = threading.Thread(
    target=lambda: network.fit(*big, **options | {'epochs': 10**6, 'batch_size': 64}, callbacks=[Watch()], n_threads=2)
)
thread.start()
started.wait()

def child():
    assert share_of(2) == 2, 'nobody else computes here'
    same(1)
    # the network which a thread trains that this process does not have: some epoch's weights, free to be trained
    network.predict(X)
    before = network.loss(X, y)
    network.fit(X, y, n_threads=2, **options)
    assert np.isfinite(network.loss(X, y))
    network.weights = other_weights
    again = fastbp.Network(network.sizes, hidden='tanh', output='softmax', dtype=network.dtype, seed=0)
    again.weights, again.biases = network.weights, network.biases
    for trained in network, again:
        trained.fit(X, y, n_threads=1, shuffle=False, **options)
    for a, b in zip(network.weights, again.weights):
        assert a.tobytes() == b.tobytes()

other_weights = [w + 1 for w in network.weights]
rng = np.random.default_rng(0)
for i in range(9):
    time.sleep(rng.uniform(0, 0.02))
    with cases.one(f'during, {i}'):
        wait(fork(child, 1 + i % 3), 'during')
with cases.one('while it draws'):
    forked, drawing = threading.Event(), threading.Event()
    def draw():
        with network._rng.bit_generator.lock:
            drawing.set()
            forked.wait()
    drawer = threading.Thread(target=draw)
    drawer.start()
    drawing.wait()
    grandparent = fork(child, 2)
    forked.set()
    drawer.join()
    wait(grandparent, 'while it draws')
with cases.one('the parent went on'):
    assert thread.is_alive()
    stopped.set()
    thread.join(60)
    assert not thread.is_alive()
    same(2)

# from a thread other than the main one, and from a callback of its own fit
with cases.one('from a thread'):
    errors = []
    def from_a_thread():
        try:
            wait(fork(lambda: same(3), 2), 'from a thread')
        except AssertionError as error:
            errors.append(error)
    thread = threading.Thread(target=from_a_thread)
    thread.start()
    thread.join()
    assert not errors, errors
with cases.one('from a callback'):
    def inside():
        same(4)
        try:
            network.fit(X, y, **options)
        except RuntimeError as error:
            assert 'in training already' in str(error)
        else:
            raise AssertionError('the child is in this training itself')

    class Fork(fastbp.Callback):
        def on_epoch_end(self, state):
            wait(fork(inside, 2), 'from a callback')

    network.fit(X, y, **options, callbacks=[Fork()])
"""


@forks
@pytest.mark.hazard("processes", "fork before, after and during another thread's fit, in a callback; grandchildren")
def test_forks(cases: Cases, tmp_path: Path, wanted: list[str]) -> None:
    cases.count_in_child(tmp_path, (FORKS + LIVES).replace("WANTED", repr(wanted)), options=WARNED)


FIRST = """
# this process has loaded nothing: each of its children forks while a thread of it loads or compiles
def first_call(delay):
    def work():
        errors = []
        def call():
            try:
                same(0)
            except BaseException as error:
                errors.append(error)
        thread = threading.Thread(target=call)
        thread.start()
        time.sleep(delay)
        forked_in_time = thread.is_alive()
        wait(fork(lambda: same(0), 2), 'forked')
        wait(fork(lambda: same(1), 1), 'forked later')
        thread.join()
        assert not errors, errors
        assert forked_in_time or delay > 0.05
    return work

for delay in DELAYS:
    with cases.one(f'a first call, after {delay} s'):
        wait(fork(first_call(delay)), 'the first fork')
"""


@forks
@pytest.mark.hazard("processes", "fork while another thread loads its kernels for the first time")
def test_forks_while_kernels_are_loaded(cases: Cases, tmp_path: Path, wanted: list[str]) -> None:
    delays = [0.0, 0.001, 0.003, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2]
    program = (FORKS + FIRST).replace("WANTED", repr(wanted)).replace("DELAYS", repr(delays))
    cases.count_in_child(tmp_path, program, options=WARNED)


@forks
@pytest.mark.hazard("processes", "fork while another thread compiles for the first time")
def test_forks_while_kernels_are_compiled(cases: Cases, tmp_path: Path) -> None:
    program = (FORKS + FIRST).replace("WANTED", repr([trained(0), trained(1)])).replace("DELAYS", "[0.4]")
    program = program.replace("import candidate, result", "import candidate, trained as result")
    program = program.replace("assert forked_in_time or delay > 0.05", "assert forked_in_time")  # it takes seconds
    cases.count_in_child(tmp_path, program, options=WARNED, FASTBP_CACHE_DIR=str(tmp_path / "cold"))


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from candidates import KINDS, result

WANTED = ...

def pools(method):
    context = multiprocessing.get_context(method)
    yield ProcessPoolExecutor(2, context), lambda pool: pool.shutdown()
    yield context.Pool(2), lambda pool: pool.terminate()

def main(cases):
    # this process: first nothing is loaded, then all is, and there were threads
    for state in ('before', 'after') if METHOD == 'fork' else ('after',):
        for pool, end in pools(METHOD):
            got = list(pool.map(result, range(KINDS)))
            end(pool)
            for i in range(KINDS):
                with cases.one(f'{METHOD}, {type(pool).__name__}, candidate {i}, {state} a fit here'):
                    assert got[i] == WANTED[i]
        assert result(0) == WANTED[0]
"""


@pytest.mark.hazard("processes", "ProcessPoolExecutor and multiprocessing.Pool by fork, forkserver, spawn")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools(cases: Cases, tmp_path: Path, wanted: list[str], method: str) -> None:
    program = POOLS.replace("WANTED = ...", f"WANTED, METHOD = {wanted!r}, {method!r}")
    cases.count_in_child(tmp_path, program, options=WARNED)


LOKY = """
import joblib
from candidates import KINDS, result

WANTED = ...

def work(i):
    return fastbp.get_num_threads(), result(i)

def main(cases):
    cores = fastbp.get_num_threads()
    for inner in None, 1:
        with joblib.parallel_config('loky', inner_max_num_threads=inner):
            got = joblib.Parallel(2)(joblib.delayed(work)(i) for i in range(KINDS))
        for i, (n_threads, digest) in enumerate(got):
            with cases.one(f'candidate {i}, with {inner} threads'):
                assert digest == WANTED[i]
                assert n_threads == (inner or max(1, cores // 2)), n_threads
    joblib.externals.loky.get_reusable_executor().shutdown()
"""


@pytest.mark.hazard("processes", "joblib's loky, and its limit of threads")
def test_loky(cases: Cases, tmp_path: Path, wanted: list[str]) -> None:
    program = LOKY.replace("WANTED = ...", f"WANTED = {wanted!r}")
    cases.count_in_child(tmp_path, program, options=("-W", "ignore"), FASTBP_NUM_THREADS=None, OMP_NUM_THREADS=None)
