"""The disk cache of compiled entry points: where it lies, and places that cannot be used or trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cases import Cases
from throwaway_package import COMPILED, LOADED, NOT_SAVED, WATCHDOG, WITHOUT_CAPABILITIES, Package, posix

import fastbp
from fastbp.kernels import _jit

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
