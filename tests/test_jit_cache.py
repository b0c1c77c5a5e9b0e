"""The disk cache of compiled entry points: never an error, never stale code, at most a recompilation.

Most tests run a copy of `fastbp.kernels._jit` in a throw-away package with tiny kernels, in new processes: there the
sources can be edited.
"""

from __future__ import annotations

import os
import sys

import pytest
from cases import Cases
from throwaway_package import COMPILED, LOADED, NOT_SAVED, SOURCES, Package

from fastbp.kernels import _jit

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


# --- without sources, and with another Numba


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
