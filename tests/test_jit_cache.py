"""The disk cache of compiled entry points: never an error, never stale code, at most a recompilation.

Most tests run a copy of `fastbp.kernels._jit` in a throw-away package with tiny kernels, in new processes: there the
sources can be edited. Every process has a watchdog, and a warning is an error in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from cases import Cases

import fastbp
from fastbp.kernels import _jit

WATCHDOG = 100  # seconds; a process takes about two

SOURCES = {
    "__init__": "",
    "_jit": Path(_jit.__file__).read_text(encoding="utf-8"),
    "inner": """
        from throwaway._jit import jit

        @jit
        def scale(x):
            return 2.0 * x
        """,
    "entries": """
        from typing import NamedTuple

        import numpy as np

        from throwaway._jit import entry
        from throwaway.inner import scale

        class Layer(NamedTuple):
            weights: np.ndarray
            biases: np.ndarray
            n: int

        @entry
        def total(layer):
            result = 0.0
            for j in range(layer.n):
                result += scale(layer.weights[j]) + layer.biases[j]
            return result

        @entry
        def first(layer):
            return layer.weights[0]

        @entry
        def minus_one(x):
            return x - 1.0
        """,
}

# What every program begins with. call() runs the entry in a module loaded anew, so that it is looked up on disk again.
PRELUDE = """
import errno, importlib, json, os, sys, threading
sys.modules["scipy"] = None  # Numba would import it
from pathlib import Path
import numba
import numpy as np
from throwaway import _jit, entries

def call():
    _jit.counts.clear()
    importlib.reload(entries)
    return entries.total(entries.Layer(np.arange(3.0), np.ones(3), 3)), dict(_jit.counts)

def report(value):
    print(json.dumps(value))
"""

COMPILED = [9.0, {"compiled": 1, "saved": 1}]
LOADED = [9.0, {"loaded": 1}]
NOT_SAVED = [9.0, {"compiled": 1}]

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")


# A root that has given up its rights over files, as in a container
WITHOUT_CAPABILITIES = """
import ctypes
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, none) == 0
"""


class Package:
    """A throw-away package of kernels, and a cache for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        for name, source in SOURCES.items():
            self.write(name, source)

    def write(self, name: str, source: str) -> None:
        """Write a module."""
        path = self.folder / "site" / "throwaway" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a part of a module."""
        assert old in dedent(SOURCES[name])
        self.write(name, dedent(SOURCES[name]).replace(old, new))

    def start(self, program: str = "report(call())", before: str = "", **environment: str | None) -> Any:
        """Start a process; None removes a variable of its environment."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "FASTBP_", "XDG_", "PYTHON"))}
        env |= {"PYTHONPATH": str(self.folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
        env |= {"FASTBP_CACHE_DIR": str(self.cache)}
        for name, value in environment.items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        command = [sys.executable, "-W", "error", "-c", dedent(before) + PRELUDE + dedent(program)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=env, cwd=self.folder, text=True, **pipes)

    def run(self, *args: str, **environment: str | None) -> Any:
        """Run a process and return what it reported; its stderr is kept."""
        return self.finish(self.start(*args, **environment))

    def finish(self, process: Any) -> Any:
        """Wait for a process and return what it reported."""
        try:
            out, self.stderr = process.communicate(timeout=WATCHDOG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            pytest.fail("the process hangs")
        assert process.returncode == 0, self.stderr
        return json.loads(out)

    def files(self, pattern: str = "*/*") -> list[Path]:
        """Return the files in the cache."""
        return sorted(self.cache.glob(pattern))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Return a throw-away package with an empty cache."""
    return Package(tmp_path)


# --- the normal course


@pytest.mark.hazard("cache", "the first process says that it compiles, the second nothing")
def test_second_process_loads_and_says_nothing(package: Package) -> None:
    program = "report([call(), entries.minus_one(1.0), entries.minus_one(np.float32(1)), dict(_jit.counts)])"
    assert package.run(program) == [COMPILED, 0.0, 0.0, {"compiled": 3, "saved": 3}]
    assert package.stderr == "fastbp: compiling its kernels (once per machine) ...\n"
    files = package.files()
    os.utime(files[0].parent, (0, 0))
    assert package.run(program) == [LOADED, 0.0, 0.0, {"loaded": 3}]
    assert package.stderr == ""
    assert files[0].parent.stat().st_mtime > 0  # most recently used
    assert len(files) == 3
    if sys.platform != "win32":
        assert not any(path.stat().st_mode & 0o022 for path in [*files, files[0].parent])


def test_import_makes_and_compiles_nothing(package: Package) -> None:
    assert package.run("report(dict(_jit.counts))") == {}
    assert not package.cache.exists()


def test_process_without_stderr(package: Package) -> None:
    assert package.run("sys.stderr = None; report(call())") == COMPILED


def test_disabled_jit(package: Package) -> None:
    assert package.run(NUMBA_DISABLE_JIT="1") == [9.0, {}]


# --- the key


@pytest.mark.hazard("cache", "an edited source of a kernel")
def test_edited_callee_in_another_file(package: Package) -> None:
    assert package.run() == COMPILED
    package.edit("inner", "2.0 * x", "3.0 * x")
    assert package.run() == [12.0, {"compiled": 1, "saved": 1}]
    package.write("inner", SOURCES["inner"])
    assert package.run() == LOADED


@pytest.mark.hazard("cache", "an edited source of a kernel")
def test_source_edited_after_import_saves_nothing(package: Package) -> None:
    program = """
        source = Path(entries.__file__).with_name("inner.py")
        source.write_text(source.read_text().replace("2.0 * x", "3.0 * x"))
        report(call())
        """
    assert package.run(program) == NOT_SAVED
    assert package.run() == [12.0, {"compiled": 1, "saved": 1}]


@pytest.mark.hazard("cache", "other options, and versions of Python, NumPy, Numba and llvmlite")
def test_other_options_and_versions(package: Package, cases: Cases) -> None:
    program = """
        import llvmlite
        from throwaway import inner

        def twice():
            _jit._digest_at_import = _jit._digest()
            importlib.reload(inner)
            return call(), call()

        seen = {"now": twice()}
        for module, name in (numba, "__version__"), (llvmlite, "__version__"), (np, "__version__"), (sys, "version"):
            now = getattr(module, name)
            setattr(module, name, "0.0.0")
            seen[f"{module.__name__}.{name}"] = twice()
            setattr(module, name, now)
        _jit.OPTIONS["nogil"] = False
        seen["options"] = twice()
        _jit.OPTIONS["nogil"] = True
        _jit._digest_at_import = _jit._digest()
        assert call() == (9.0, {"loaded": 1})
        report(seen)
        """
    seen = package.run(program)
    assert len(seen) == 6
    cases.count(len(seen), sum(one == [COMPILED, LOADED] for one in seen.values()), seen)


@pytest.mark.hazard("cache", "another CPU, or another configuration of Numba")
def test_other_configuration(package: Package, cases: Cases) -> None:
    program = """
        seen = {"now": (call(), call())}
        for name, value in {"CPU_NAME": "generic", "OPT": 1, "BOUNDSCHECK": 1, "SLP_VECTORIZE": 1}.items():
            now = getattr(numba.config, name)
            setattr(numba.config, name, value)
            seen[name] = call(), call()
            setattr(numba.config, name, now)
        codegen = type(numba.core.registry.cpu_target.target_context.codegen())
        magic_tuple = codegen.magic_tuple
        codegen.magic_tuple = lambda self: (*magic_tuple(self)[:2], "features of another host")
        seen["target"] = call(), call()
        codegen.magic_tuple = magic_tuple
        assert call() == (9.0, {"loaded": 1})
        report(seen)
        """
    seen = package.run(program)
    assert len(seen) == 6
    cases.count(len(seen), sum(one == [COMPILED, LOADED] for one in seen.values()), seen)
    assert package.run(NUMBA_CPU_NAME="generic") == COMPILED
    assert package.run(NUMBA_NUM_THREADS="1") == LOADED


def test_fields_of_a_record_in_another_order(package: Package) -> None:
    program = """
        from collections import namedtuple
        def total():
            entries.total = _jit.entry(entries.total.py_func)
            return entries.total(entries.Layer(np.array([1.0, 2.0]), np.array([10.0, 20.0]), 2))
        seen = [total(), total()]
        entries.Layer = namedtuple("Layer", ["biases", "weights", "n"], module="throwaway.entries")
        report([*seen, total(), dict(_jit.counts)])
        """
    assert package.run(program) == [36.0, 36.0, 63.0, {"compiled": 2, "saved": 2, "loaded": 1}]


def test_other_class_of_the_same_name(package: Package) -> None:
    program = """
        from typing import NamedTuple
        def total(cls):
            entries.total = _jit.entry(entries.total.py_func)
            return entries.total(cls(np.arange(3.0), np.ones(3), 3)), dict(_jit.counts)
        class Layer(NamedTuple):
            weights: np.ndarray
            biases: np.ndarray
            n: int
        report([total(entries.Layer), total(Layer)])
        """
    assert package.run(program) == [COMPILED, [9.0, {"compiled": 2, "saved": 2}]]


def test_entry_outside_the_key_is_refused() -> None:
    def local(x: float) -> float:
        return x

    with pytest.raises(ValueError, match="cannot be an entry"):
        _jit.entry(local)
    local.__qualname__ = "local"
    with pytest.raises(ValueError, match="cannot be an entry"):
        _jit.entry(local)


# --- damage


@pytest.mark.hazard("cache", "a damaged file")
def test_damaged_files_are_compiled_and_healed(package: Package, cases: Cases) -> None:
    program = """
        import pickle
        from hashlib import sha256
        assert list(call()) == [9.0, {"compiled": 1, "saved": 1}]
        (file,) = Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/*.entry")
        good = file.read_bytes()
        entries.first(entries.Layer(np.arange(3.0), np.ones(3), 3))
        (other,) = Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/first*.entry")

        def flipped(at):
            damaged = bytearray(good)
            damaged[at] ^= 1
            return bytes(damaged)

        sealed = []
        place = _jit._DiskCache._place
        _jit._DiskCache._place = lambda *args: sealed.append(place(*args)) or sealed[-1]
        call()
        key = sealed[-1][1]
        def seal(payload):
            return sha256(key + payload).digest() + payload
        types = pickle.loads(good[32:])[0]

        damages = {"empty": b"", "other": other.read_bytes(), "foreign": b"x" * 1000, "zeros": bytes(len(good))}
        damages |= {f"cut to {n}": good[:n] for n in (1, 32, 33, len(good) // 2, len(good) - 1)}
        damages |= {f"flipped {n}": flipped(n) for n in (0, 31, 32, 33, len(good) // 2, len(good) - 1)}
        damages |= {"longer": good + b"x", "not a pickle": seal(b"x"), "class gone": seal(b"cthrowaway.gone\\nX\\n.")}
        damages |= {"other content": seal(pickle.dumps((types, (1, 2)))), "other types": seal(pickle.dumps(((), ())))}
        wrong = {}
        for name, content in damages.items():
            file.write_bytes(content)
            seen = call(), call()
            if seen != ((9.0, {"compiled": 1, "saved": 1}), (9.0, {"loaded": 1})):
                wrong[name] = seen
        file.unlink()
        file.mkdir()
        report([wrong, len(damages), call()])
        """
    wrong, damages, as_a_folder = package.run(program)
    cases.count(damages, damages - len(wrong), wrong)
    assert as_a_folder == NOT_SAVED
    assert not package.files("*/*.tmp")


@pytest.mark.hazard("cache", "every file emptied, cut, flipped in a bit, replaced by another's")
def test_every_file(package: Package, cases: Cases) -> None:
    program = """
        rng, layer = np.random.default_rng(0), entries.Layer(np.arange(3.0), np.ones(3), 3)

        def use():
            _jit.counts.clear()
            importlib.reload(entries)
            return [entries.total(layer), entries.first(layer), entries.minus_one(1.0)], dict(_jit.counts)

        right = use()[0]
        files = sorted(Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/*.entry"))
        good = [file.read_bytes() for file in files]
        wrong, tried = [], 0
        for i, file in enumerate(files):
            n = len(good[i])
            damages = [b"", good[i - 1], good[i - 2], *(good[i][:cut] for cut in (1, 31, 32, 33, n // 3, n - 1))]
            for at in rng.integers(0, n, 8):
                damages.append(good[i][:at] + bytes([good[i][at] ^ (1 << int(rng.integers(8)))]) + good[i][at + 1:])
            for damage in damages:
                tried += 1
                file.write_bytes(damage)
                if use() != (right, {"loaded": 2, "compiled": 1, "saved": 1}) or use() != (right, {"loaded": 3}):
                    wrong.append([file.name, len(damage)])
        report([right, len(files), tried, wrong])
        """
    right, n_files, tried, wrong = package.run(program)
    assert (right, n_files) == ([9.0, 0.0, 0.0], 3)
    cases.count(tried, tried - len(wrong), wrong)


# --- places that cannot be used


@pytest.mark.hazard("cache", "no folder, or none that can be made")
def test_unusable_places(package: Package, cases: Cases) -> None:
    program = """
        folder = Path(os.environ.pop("FASTBP_CACHE_DIR")).parent
        file = folder / "file"
        file.write_text("")
        os.environ.pop("HOME", None), os.environ.pop("LOCALAPPDATA", None)
        seen = {"no home": call()}
        os.environ["HOME"] = os.environ["LOCALAPPDATA"] = str(file)
        seen["home is a file"] = call()
        for name, path in {"a file": file, "below a file": file / "x", "too long": "x" * 5000}.items():
            os.environ["FASTBP_CACHE_DIR"] = str(path)
            seen[name] = call()
        if sys.platform == "linux":
            os.environ["FASTBP_CACHE_DIR"] = "/proc/fastbp"
            seen["not creatable"] = call()
        report(seen)
        """
    seen = package.run(program)
    assert len(seen) >= 5
    cases.count(len(seen), sum(one == NOT_SAVED for one in seen.values()), seen)
    assert package.stderr.startswith("fastbp: compiling its kernels (in each process: ")
    assert package.stderr.count("\n") == 1


@pytest.mark.hazard("cache", "a full disk")
def test_failing_calls_of_the_system(package: Package, cases: Cases) -> None:
    program = """
        def fail(*args, **keywords):
            raise OSError(errno.ENOSPC, "No space left on device")

        seen = {}
        if os.path.exists("/dev/full"):  # the disk is full when the content is written
            works = _jit.tempfile.mkstemp
            def mkstemp(**options):
                descriptor, path = works(**options)
                os.close(descriptor)
                return os.open("/dev/full", os.O_WRONLY), path
            _jit.tempfile.mkstemp = mkstemp
            seen["write"] = call()
            _jit.tempfile.mkstemp = works
        for module, name in (_jit.tempfile, "mkstemp"), (os, "replace"), (os, "chmod"), (os, "access"), (Path, "mkdir"):
            works = getattr(module, name)
            setattr(module, name, fail)
            seen[name] = call()
            setattr(module, name, works)
        setattr(os, "utime", fail)
        report([seen, call(), call()])
        """
    seen, first, second = package.run(program)
    assert seen.pop("access") == COMPILED
    cases.count(len(seen), sum(one == NOT_SAVED for one in seen.values()), seen)
    assert [first, second] == [LOADED, LOADED]
    assert not package.files("*/*.tmp")


@pytest.mark.hazard("cache", "a full disk")
@posix
def test_full_disk(package: Package) -> None:
    program = """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        report(call())
        """
    assert package.run(program) == NOT_SAVED
    assert package.files() == []


@pytest.mark.hazard("cache", "a folder that is read-only")
@posix
def test_read_only_folder(package: Package) -> None:
    program, before = "report(call())", ""
    if os.geteuid() == 0:  # root writes to read-only folders, unless it gives up the right to
        if sys.platform != "linux":
            pytest.skip("root writes to read-only folders")
        before = WITHOUT_CAPABILITIES
    package.cache.mkdir()
    package.cache.chmod(0o555)
    assert package.run(program, before) == NOT_SAVED
    package.cache.chmod(0o755)
    assert package.run(program, before) == COMPILED
    (folder,) = package.files("*")
    folder.chmod(0o555)
    assert package.run(program, before) == LOADED
    (file,) = package.files()
    file.write_bytes(b"")
    assert package.run(program, before) == NOT_SAVED
    folder.chmod(0o755)


@posix
@pytest.mark.hazard("cache", "fastbp installed in a folder that is read-only, without a home")
def test_installed_read_only(tmp_path: Path, cases: Cases) -> None:
    """It is imported without a word, wherever it may write or not; Python's own caches are missing, too."""
    site, home = tmp_path / "site", tmp_path / "home"
    shutil.copytree(Path(fastbp.__file__).parent, site / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*site.rglob("*"), site]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    home.mkdir(0o555)
    before = WITHOUT_CAPABILITIES if sys.platform == "linux" and os.geteuid() == 0 else ""
    program = before + "import fastbp; print(fastbp.Network([2, 1], seed=0).sizes, fastbp.__file__)"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "FASTBP_", "XDG_", "PYTHON"))}
    env |= {"PYTHONPATH": str(site)}
    try:
        for homes in {"HOME": str(home)}, {"HOME": str(home / "missing")}, {"HOME": "/dev/null"}:
            with cases.one(homes):
                done = subprocess.run(
                    [sys.executable, "-W", "error", "-c", program],
                    env=env | homes, cwd=tmp_path, capture_output=True, text=True, timeout=WATCHDOG,
                )  # fmt: skip
                assert (done.returncode, done.stderr) == (0, "")
                assert done.stdout == f"(2, 1) {site / 'fastbp' / '__init__.py'}\n"
        assert not any(path.suffix == ".pyc" for path in site.rglob("*"))
    finally:
        for path in [site, *site.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.hazard("cache", "files that others could have written")
@posix
def test_nothing_is_loaded_that_others_could_have_written(package: Package) -> None:
    program = """
        call()
        (file,) = Path(os.environ["FASTBP_CACHE_DIR"]).glob("*/*")
        seen = {}
        for path in file, file.parent:
            mode = path.stat().st_mode
            for more in 0o020, 0o002:
                path.chmod(mode | more)
                seen[f"{path.suffix} {more}"] = call()
                path.chmod(mode)
                seen[f"{path.suffix} again {more}"] = call()
        if os.geteuid() == 0:
            for path in file, file.parent:
                os.chown(path, 12345, 12345)
                seen[f"{path.suffix} of another"] = call()
                os.chown(path, 0, 0)
        report(seen)
        """
    seen = package.run(program)
    assert len(seen) >= 8
    for name, result in seen.items():
        expected = LOADED if "again" in name else COMPILED if name.startswith(".entry") else NOT_SAVED
        assert result == expected, name


# --- many at once


@pytest.mark.hazard("cache", "many cold processes and threads at once")
def test_four_cold_processes(package: Package, cases: Cases) -> None:
    processes = [package.start() for _ in range(4)]
    for process in processes:
        with cases.one(process.pid):
            result, counts = package.finish(process)
            assert result == 9.0
            assert counts in (COMPILED[1], LOADED[1])
    assert len(package.files()) == 1
    assert package.run() == LOADED


@pytest.mark.hazard("cache", "many cold processes and threads at once")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_sixteen_cold_processes(package: Package, cases: Cases) -> None:
    """All have imported all when they begin, at the same moment; nothing is compiled then."""
    program = """
        go, begin = os.pipe()
        children = []
        for _ in range(16):
            if (child := os.fork()) == 0:
                os.read(go, 1)
                seen = call()
                os._exit(0 if seen in ((9.0, {"compiled": 1, "saved": 1}), (9.0, {"loaded": 1})) else 1)
            children.append(child)
        os.write(begin, bytes(16))
        report([os.waitpid(child, 0)[1] for child in children])
        """
    codes = package.run(program)
    cases.count(16, codes.count(0), codes)
    assert len(package.files()) == 1
    assert package.run() == LOADED


@pytest.mark.slow
@pytest.mark.hazard("cache", "16 cold processes train for the first time, and compile all kernels")
def test_sixteen_first_fits(tmp_path: Path, cases: Cases) -> None:
    program = """
        import numpy as np, fastbp
        network = fastbp.Network([4, 3, 2], output="softmax", seed=0)
        network.fit(np.eye(4), np.arange(4) % 2, epochs=3, verbose=False)
        print([w.tobytes().hex() for w in network.weights])
        """
    env = os.environ | {"FASTBP_CACHE_DIR": str(tmp_path / "cache")}
    command, pipes = [sys.executable, "-W", "error", "-c", dedent(program)], {"stdout": -1, "stderr": -1}
    said, seen = [], set()
    processes: list[Any] = [subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **pipes) for _ in range(16)]
    for process in [*processes, None]:
        process = process or subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **pipes)  # type: ignore[call-overload]
        with cases.one(process.pid):
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0
            seen.add(out)
            assert len(seen) == 1
            said.append(err)
    assert said[-1] == "", "the last one loads"
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.hazard("cache", "many cold processes and threads at once")
def test_threads_call_at_first_use(package: Package) -> None:
    program = """
        from concurrent.futures import ThreadPoolExecutor
        barrier = threading.Barrier(8)
        def first_use(_):
            barrier.wait()
            return entries.total(entries.Layer(np.arange(3.0), np.ones(3), 3))
        with ThreadPoolExecutor(8) as pool:
            report([list(pool.map(first_use, range(8))), dict(_jit.counts)])
        """
    assert package.run(program) == [[9.0] * 8, {"compiled": 1, "saved": 1}]


FORK = """
    import signal, time
    import llvmlite.binding as llvm

    def compile_until_stopped():
        while not stopped.is_set():
            numba.njit(lambda x: x + 1.0)(1.0)

    def assemble_until_stopped():  # in LLVM, but without Numba's lock
        text = "".join(f"define i32 @f{i}() {{ ret i32 0 }}\\n" for i in range(10000))
        while not stopped.is_set():
            llvm.parse_assembly(text)

    def child(generation):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            right = numba.njit(lambda x: x + generation)(1.0) == 1.0 + generation
            os._exit(0 if right and (generation == 0 or child(generation - 1)) else 1)
        return os.waitpid(pid, 0)[1] == 0

    numba.njit(lambda x: x)(1.0)
    stopped = threading.Event()
    thread = threading.Thread(target=WORK)
    thread.start()
    held = []
    for _ in range(3):
        time.sleep(0.05)
        held.append(child(1))
    alive = thread.is_alive()
    stopped.set()
    thread.join()
    report([held, alive, call()])
    """


@posix
@pytest.mark.hazard("processes", "fork while another thread is in the compiler; grandchildren that compile")
@pytest.mark.parametrize("work", ["compile_until_stopped", "assemble_until_stopped"])
def test_fork_while_another_thread_is_in_the_compiler(package: Package, work: str) -> None:
    ignore = "import warnings; warnings.filterwarnings('ignore', '.*fork', DeprecationWarning)\n"  # of Python 3.12
    assert package.run(FORK.replace("WORK", work), ignore) == [[True] * 3, True, COMPILED]


# --- the folder


def test_least_recently_used_folders_are_deleted(tmp_path: Path) -> None:
    folders = [tmp_path / f"kernels-{i}" for i in range(_jit.FOLDERS_KEPT + 4)]
    for folder in folders:
        folder.mkdir()
        (folder / "x.entry").touch()
        (folder / "x.tmp").touch()
    (folders[-1] / "not ours").touch()
    day_before = time.time() - 2 * 86400
    os.utime(folders[0] / "x.tmp", (day_before, day_before))
    (folders[0] / "y.tmp").touch()
    for age, folder in enumerate(folders):
        os.utime(folder, (time.time() - age, time.time() - age))
    _jit._prune(folders[0])
    assert sorted(tmp_path.iterdir()) == sorted([*folders[: _jit.FOLDERS_KEPT], folders[-1]])
    assert [path.name for path in folders[-1].iterdir()] == ["not ours"]
    assert sorted(path.name for path in folders[0].iterdir()) == ["x.entry", "y.tmp"]


def test_package_without_sources_is_not_cached(package: Package) -> None:
    import compileall

    site = package.folder / "site" / "throwaway"
    compileall.compile_dir(site, legacy=True, quiet=1)
    for source in site.glob("*.py"):
        source.unlink()
    assert package.run("report(entries.minus_one(1.0))") == 0.0
    assert not package.cache.exists()


@pytest.mark.hazard("cache", "another Numba, without the names that are private")
def test_numba_without_private_names(package: Package) -> None:
    program = """
        from throwaway import inner

        class Dispatcher:  # without _cache
            __slots__ = ("call",)
            def __init__(self, function): self.call = numba.njit(function)
            def __call__(self, *args): return self.call(*args)

        missing, found = set(), set()
        def resolve(name, resolve=_jit.resolve_name):
            found.add(name)
            if name in missing:
                raise AttributeError(name)
            return resolve(name)

        def reload():
            importlib.reload(_jit)
            _jit.resolve_name = resolve
            importlib.reload(inner)

        import pkgutil
        pkgutil.resolve_name = resolve
        reload(), call(), reload(), call()
        seen = {}
        for name in sorted(found):
            missing = {name}
            reload()
            seen[name] = call()
        missing = found
        reload()
        seen["all"] = call()
        _jit._njit = lambda **options: Dispatcher
        seen["_cache"] = _jit.entry(entries.minus_one.py_func)(1.0), {}
        report(seen)
        """
    seen = package.run(program)
    locks = [seen.pop(name) for name in list(seen) if "lock" in name]
    assert locks == [LOADED] * 2
    assert seen.pop("numba.core.serialize:dumps") == LOADED
    assert seen.pop("numba.core.compiler:CompileResult._rebuild") == COMPILED
    assert seen.pop("numba.core.runtime:rtsys.initialize") == COMPILED
    assert seen == {"numba.core.caching:NullCache": [9.0, {}], "all": [9.0, {}], "_cache": [0.0, {}]}


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"HOME": "."}, ".cache/fastbp"),
        ("linux", {"HOME": ".", "XDG_CACHE_HOME": "xdg"}, "xdg/fastbp"),
        ("darwin", {"HOME": "."}, "Library/Caches/fastbp"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/fastbp"),
        ("linux", {"HOME": ".", "FASTBP_CACHE_DIR": "own"}, "own"),
    ],
)
def test_default_folder(
    platform: str, environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "FASTBP_CACHE_DIR":
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr(_jit._config, "CACHE_DIR", "")
    monkeypatch.setattr(sys, "platform", platform)
    assert _jit._root()[0] == tmp_path / expected


def test_numba_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTBP_CACHE_DIR", raising=False)
    monkeypatch.setattr(_jit._config, "CACHE_DIR", str(tmp_path))
    assert _jit._root()[0] == tmp_path / "fastbp"


@posix
def test_home_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "XDG_CACHE_HOME", "FASTBP_CACHE_DIR":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_jit._config, "CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _jit.cache_folder() is not None
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert _jit.cache_folder() is None
