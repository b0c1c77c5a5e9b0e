"""The decorators with every Numba option, and the disk cache of compiled entry points.

`jit` is for kernels that kernels call, `entry` for the few that Python calls. An entry's machine code, which holds all
its callees, is stored on disk; a later process loads it in milliseconds instead of compiling for seconds.

- A file is valid for one entry, signature, target and Numba configuration, and for the sources of this folder, OPTIONS
  and the versions of Python, NumPy, Numba and llvmlite. Whatever else a kernel freezes when it is compiled (an
  environment variable, a constant of another folder) is not in the key, so kernels must not do that.
- A checksum of key and content is verified before anything is unpickled. Whatever fails (no folder, no space, a
  damaged or foreign file, an unknown Numba) means that the entry is compiled, never an error; the next save heals.
- Folder: FASTBP_CACHE_DIR, else NUMBA_CACHE_DIR/fastbp, else fastbp in the user's cache folder. Nothing is loaded that
  others than this user and root could have written, because to unpickle is to run code.

Importing this module also makes a fork safe while another thread compiles: the fork waits until that is finished.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import llvmlite
import numba
import numba.extending
import numpy as np
import numpy.ma  # by Numba at the first call: too late, a fork meanwhile would leave the child a half-made module

Function = TypeVar("Function", bound=Callable[..., Any])

# error_model: a check for division by zero stops vectorisation. fastmath: a NaN must reach the loss.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": False}
# what only kernels call needs no wrappers for Python and C, which are most of a small kernel's compilation time
INNER = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# for 0 and 1 where kernels are called or counting begins: for such constants Numba would compile them once more
NONE: Any = np.int64(0)
ONE: Any = np.int64(1)
FOLDERS_KEPT = 8  # one per state of sources and versions; the least recently used are deleted

counts: Counter[str] = Counter()  # entries "loaded", "compiled" and "saved" in this process

_njit: Any = numba.njit
_config: Any = numba.config
_NullCache: Any = object
with suppress(ImportError, AttributeError):  # private, as is all that resolve_name finds: without it nothing is cached
    _NullCache = resolve_name("numba.core.caching:NullCache")


def jit(function: Function) -> Function:
    """Compile a kernel that kernels call, stored as a part of entries; a call from Python would crash the process."""
    compiled: Function = _njit(**INNER)(function)
    return compiled


def inlined(function: Function) -> Function:
    """Compile a kernel that becomes a part of the kernel which calls it: the body of a hot loop."""
    compiled: Function = _njit(**INNER, forceinline=True)(function)
    return compiled


@numba.extending.intrinsic
def outline(typingctx: Any) -> Any:
    """Keep the kernel that calls this from becoming a part of its callers, where that would only cost compile time."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return numba.types.void(), codegen


def entry(function: Function) -> Function:
    """Compile a kernel that Python calls, and store it on disk.

    Raises
    ------
    ValueError
        If `function` is not a module-level function of this package, whose sources alone are in the cache's key.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    if not name.startswith(f"{__package__}.") or "<locals>" in name:
        raise ValueError(f"{name} cannot be an entry: only a module-level function in {__package__} can; use jit")
    compiled: Any = _njit(**OPTIONS)(function)
    if _NullCache is not object and hasattr(compiled, "_cache"):
        compiled._cache = _DiskCache(name)
    return compiled


def cache_folder() -> Path | None:
    """Return the folder that this process saves entries in, None where it cannot."""
    try:
        folder = _folder()
    except Exception:  # whatever is wrong with a folder means that there is none
        return None
    return folder if os.access(folder, os.W_OK) else None


def _digest() -> str:
    """Return the digest of all that entries have in common."""
    here = Path(__file__).parent
    sources = sorted((str(path.relative_to(here)), sha256(path.read_bytes()).digest()) for path in here.rglob("*.py"))
    if not sources:
        raise FileNotFoundError(f"no sources in {here}")  # a zip file, or compiled modules only
    versions = numba.__version__, llvmlite.__version__, np.__version__, sys.version, sys.platform
    return sha256(repr((sources, OPTIONS, versions)).encode()).hexdigest()[:32]


_digest_at_import = ""
with suppress(OSError):
    _digest_at_import = _digest()  # of the sources as Python reads them now, whenever something is compiled


def _root() -> tuple[Path, int]:
    """Return the folder of all caches and the mode of folders made in it (one chosen by hand may serve many users)."""
    if chosen := os.environ.get("FASTBP_CACHE_DIR"):
        return Path(chosen), 0o755
    if _config.CACHE_DIR:
        return Path(_config.CACHE_DIR, "fastbp"), 0o755
    if sys.platform == "win32":
        base = Path(os.environ["LOCALAPPDATA"])
    elif sys.platform == "darwin":
        base = Path(os.environ["HOME"], "Library", "Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ["HOME"], ".cache"))
    root = base / "fastbp"
    if sys.platform != "win32":
        nearest = next(path for path in (root, *root.parents) if path.exists())
        if nearest.stat().st_uid != os.geteuid():  # as under sudo: leave no files of root in a user's home
            raise PermissionError(f"{nearest} belongs to another user")
    return root, 0o700


def _check_owner(status: os.stat_result) -> None:
    if sys.platform != "win32" and (status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022):
        raise PermissionError("others may have written this")


def _folder() -> Path:
    digest = _digest()
    if digest != _digest_at_import:
        raise RuntimeError("sources were edited after they had been imported")
    root, mode = _root()
    folder = root / f"kernels-{digest}"
    folder.mkdir(mode, parents=True, exist_ok=True)
    _check_owner(folder.stat())
    return folder


def _prune(current: Path) -> None:
    """Delete the least recently used folders, and what killed processes left in the current one."""
    folders = sorted(current.parent.glob("kernels-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-FOLDERS_KEPT]:
        with suppress(OSError):
            for file in [*folder.glob("*.entry"), *folder.glob("*.tmp")]:
                file.unlink()
            folder.rmdir()
    for file in current.glob("*.tmp"):
        if file.stat().st_mtime < time.time() - 86400:
            file.unlink()


@cache
def _announce() -> None:
    """Say on stderr, once, that this process compiles, and whether the next one will."""
    often = "once per machine" if cache_folder() else "in each process: nowhere to store them, set FASTBP_CACHE_DIR"
    if sys.stderr is not None:
        print(f"fastbp: compiling its kernels ({often}) ...", file=sys.stderr, flush=True)


class _DiskCache(_NullCache):
    """What a Numba dispatcher asks before it compiles and tells after, under Numba's compiler lock.

    Not a FunctionCache: that one touches the disk when made, and keeps an index that may disagree with the data.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def load_overload(self, *args: Any) -> Any:
        with suppress(Exception):
            if (loaded := self._load(*args)) is not None:
                counts["loaded"] += 1
                return loaded
        counts["compiled"] += 1
        with suppress(Exception):
            _announce()
        return None

    def save_overload(self, *args: Any) -> None:
        with suppress(Exception):
            self._save(*args)

    def _place(self, types: Any, codegen: Any) -> tuple[Path, bytes]:
        """Return the path of an entry's file and its full key."""
        harmless = "CUDA", "CACHE", "THREAD", "GDB"  # all the rest of the configuration is taken to shape the code
        config = [(k, v) for k, v in vars(_config).items() if k.isupper() and not any(word in k for word in harmless)]
        folder = _folder()
        arguments = [(str(kind), getattr(kind, "fields", None)) for kind in types]
        key = repr((folder.name, self._name, arguments, codegen.magic_tuple(), sorted(config))).encode()
        return folder / f"{self._name.rpartition('.')[2]}-{sha256(key).hexdigest()[:32]}.entry", key

    def _load(self, signature: Any, target: Any) -> Any:
        resolve_name("numba.core.runtime:rtsys.initialize")(target)  # Numba would refresh all it can compile: 0.7 s
        types = getattr(signature, "args", signature)
        path, key = self._place(types, target.codegen())
        with open(path, "rb") as file:
            _check_owner(os.fstat(file.fileno()))
            checksum, payload = file.read(32), file.read()
        if checksum != sha256(key + payload).digest():
            return None
        stored, reduced = pickle.loads(payload)
        if stored != types:  # others of the same name
            return None
        with suppress(OSError):
            os.utime(path.parent)  # recently used
        return resolve_name("numba.core.compiler:CompileResult._rebuild")(target, *reduced)

    def _save(self, signature: Any, result: Any) -> None:
        if result.library.has_dynamic_globals:  # addresses of this process
            return
        types = getattr(signature, "args", signature)
        path, key = self._place(types, result.codegen)
        payload = resolve_name("numba.core.serialize:dumps")((types, result._reduce()))
        descriptor, temporary = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(sha256(key + payload).digest() + payload)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:  # an interrupt too must leave no file behind
            os.unlink(temporary)
            raise
        counts["saved"] += 1
        _prune(path.parent)


if sys.platform != "win32":  # hold these locks during a fork: a child that compiles cannot wait for threads it lacks
    _locks = []
    for _name in "numba.core.compiler_lock:global_compiler_lock._lock", "llvmlite.binding.ffi:lib._lock._lock":
        with suppress(ImportError, AttributeError):
            _locks.append(resolve_name(_name))

    def _acquire() -> None:
        for lock in _locks:
            lock.acquire()

    def _release() -> None:
        for lock in reversed(_locks):
            with suppress(RuntimeError):  # not held: an interrupt ended the wait for it
                lock.release()

    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
