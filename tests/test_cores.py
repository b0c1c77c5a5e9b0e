"""Cores: how many threads a call takes, by what the user, the environment, the affinity and the control group say."""

from __future__ import annotations

import io
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp.engine import cores
from fastbp.engine.cores import (
    WORK_PER_START,
    WORK_PER_THREAD,
    WORK_PER_TRIAL,
    Choice,
    available_cores,
    n_workers_for,
    own_cores,
)
from fastbp.engine.team import run_team

VARIABLES = ["FASTBP_NUM_THREADS", "OMP_NUM_THREADS"]


@pytest.fixture(autouse=True)
def _nobody_said_anything(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "_limit", None)
    monkeypatch.setattr(cores, "_QUOTA_LASTS", 0.0)


@pytest.fixture
def eight_cores(monkeypatch):
    """Pretend that this process may use eight cores, whatever the machine."""
    monkeypatch.setattr(cores, "available_cores", lambda: 8)


def affinity(monkeypatch, n):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(n)), raising=False)


# What the user and the environment say


def test_by_default_all_cores(eight_cores):
    assert fastbp.get_num_threads() == 8


@pytest.mark.parametrize("n", [1, 2, 5, np.int64(3), 100])
def test_the_user_has_the_last_word(eight_cores, monkeypatch, n):
    monkeypatch.setenv("FASTBP_NUM_THREADS", "7")
    fastbp.set_num_threads(n)
    assert fastbp.get_num_threads() == n
    assert type(fastbp.get_num_threads()) is int
    fastbp.set_num_threads(None)
    assert fastbp.get_num_threads() == 7


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1),
        ("3", 3),
        (" 3 ", 3),
        ("8", 8),
        ("64", 8),
        ("3,2", 3),
        ("", 8),
        ("0", 8),
        ("-2", 8),
        ("two", 8),
        ("2.5", 8),
    ],
)
def test_environment(eight_cores, monkeypatch, variable, value, expected):
    """A number counts up to the cores there are; of nested levels (OpenMP) the first; nonsense is no limit."""
    monkeypatch.setenv(variable, value)
    assert fastbp.get_num_threads() == expected


def test_the_own_variable_comes_first(eight_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("FASTBP_NUM_THREADS", "5")
    assert fastbp.get_num_threads() == 5
    monkeypatch.setenv("FASTBP_NUM_THREADS", "many")
    assert fastbp.get_num_threads() == 2


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("2", TypeError)])
def test_bad_numbers_change_nothing(n, error):
    fastbp.set_num_threads(3)
    with pytest.raises(error, match=f"^n is {n!r}, but must be (at least 1|an integer)"):
        fastbp.set_num_threads(n)
    assert fastbp.get_num_threads() == 3


# What the work repays


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (0, 1),
        (1, 1),
        (WORK_PER_THREAD, 1),
        (2 * WORK_PER_THREAD - 1, 1),
        (2 * WORK_PER_THREAD, 2),
        (7.5 * WORK_PER_THREAD, 7),
        (10**15, 8),
    ],
)
def test_small_work_has_few_workers(eight_cores, work, expected):
    assert n_workers_for(None, work) == expected


def test_what_repays_may_differ(eight_cores):
    assert n_workers_for(None, 3 * WORK_PER_START, WORK_PER_START) == 3


def test_a_limit_limits_what_work_would_repay(eight_cores):
    fastbp.set_num_threads(2)
    assert n_workers_for(None, 10**15) == 2
    assert n_workers_for(None, 0) == 1


def test_who_asks_for_threads_gets_them(eight_cores):
    fastbp.set_num_threads(2)
    assert n_workers_for(5, 0) == 5


@pytest.mark.capped
def test_no_more_threads_than_cores() -> None:
    assert n_workers_for(1000, 10**15) == available_cores()


def test_who_asks_for_more_than_the_cores_leaves_the_number_to_the_work(monkeypatch) -> None:
    monkeypatch.setattr(cores, "most_threads", lambda: 8)
    fastbp.set_num_threads(2)  # of which a call that says something itself does not depend
    assert [n_workers_for(9, work * WORK_PER_THREAD) for work in (0, 1, 2, 7.5, 1000)] == [1, 1, 2, 7, 8]
    assert [cores.is_open(n) for n in (None, 1, 8, 9, 1000)] == [True, False, False, True, True]


# Affinity and control groups


def test_affinity(monkeypatch):
    monkeypatch.setattr(cores, "_cgroup_quota", lambda: None)
    affinity(monkeypatch, 3)
    assert available_cores() == 3


def test_systems_without_affinity(monkeypatch):
    monkeypatch.setattr(cores, "_cgroup_quota", lambda: None)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (0.2, 1), (1.0, 1), (1.5, 2), (3.999, 4), (64.0, 4)])
def test_a_quota_is_rounded_up_and_never_adds_cores(monkeypatch, quota, expected):
    affinity(monkeypatch, 4)
    monkeypatch.setattr(cores, "_cgroup_quota", lambda: quota)
    assert available_cores() == expected


def test_this_machine():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


# (/proc/self/cgroup, files under /sys/fs/cgroup, cores granted)
GROUPS = {
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "version 2, half a core": ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
    "version 2, own group": ("0::/a/b\n", {"a/b/cpu.max": "250000 100000"}, 2.5),
    "version 2, own group without a file": ("0::/a/b\n", {"a/cpu.max": "300000 100000"}, 3.0),
    "version 2, the tightest level": (
        "0::/a/b\n",
        {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"},
        1.5,
    ),
    "version 2, a neighbour's limit": ("0::/a\n", {"b/cpu.max": "50000 100000"}, None),
    "version 2, path above the mount": ("0::/../../x\n", {"cpu.max": "200000 100000"}, 2.0),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
        1.5,
    ),
    "version 1, seen from a container": (
        "3:cpu,cpuacct:/docker/0123\n",
        {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "50000\n"},
        4.0,
    ),
    "version 1, no limit": (
        "3:cpu,cpuacct:/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, cpuset is not cpu": (
        "3:cpuset:/\n",
        {"cpuset/cpu.cfs_quota_us": "50000\n", "cpuset/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "both versions": (
        "1:cpu:/x\n0::/x\n",
        {"cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": "100000\n", "x/cpu.max": "max 100000"},
        3.0,
    ),
    "a path with a colon": ("0::/a:b\n", {"a:b/cpu.max": "100000 100000"}, 1.0),
    "version 2, damaged": ("0::/\n", {"cpu.max": "what?"}, None),
    "version 2, empty": ("0::/\n", {"cpu.max": ""}, None),
    "version 1, damaged": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "x", "cpu/cpu.cfs_period_us": "100000"}, None),
    "version 1, no period": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000"}, None),
    "no files": ("0::/a\n3:cpu:/a\n", {}, None),
    "no groups": ("", {}, None),
    "no such list": (None, {"cpu.max": "50000 100000"}, None),
    "a damaged list": ("what?\n0::/\n", {"cpu.max": "50000 100000"}, 0.5),
}


@pytest.mark.skipif(os.name == "nt", reason="control groups are Linux's, and so are the colons in their names")
@pytest.mark.parametrize("case", GROUPS)
def test_control_groups(case, tmp_path, monkeypatch):
    listed, files, expected = GROUPS[case]
    monkeypatch.setattr(cores, "Path", lambda path: Path(tmp_path, path.lstrip("/")))
    if listed is not None:
        files = {"../../../proc/self/cgroup": listed, **files}
    for name, text in files.items():
        path = tmp_path.joinpath("sys/fs/cgroup", name)
        Path(os.path.normpath(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(os.path.normpath(path)).write_text(text)
    assert cores._cgroup_quota() == expected
    affinity(monkeypatch, 8)
    assert available_cores() == (8 if expected is None else int(np.ceil(expected)))


def test_no_call_takes_more_than_it_may(monkeypatch):
    """The limit reaches the engine: the team of a fit whose work would repay many threads has as many as allowed."""
    seen = []
    run_team = fastbp.engine.run.run_team

    def recording(task, n_workers, **options):
        seen.append(n_workers)
        return run_team(task, n_workers, **options)

    monkeypatch.setattr(fastbp.engine.run, "run_team", recording)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    X, y = np.zeros((2000, 100), np.float32), np.zeros(2000, int)
    network = fastbp.Network([100, 200, 10], output="softmax", seed=0)
    for limit in (3, 1):
        fastbp.set_num_threads(limit)
        network.fit(X, y, batch_size=1000, verbose=False)
        assert seen == [limit]
        seen.clear()
        network.fit(X, y, batch_size=1000, verbose=False, n_threads=2)
        assert seen == [2]
        seen.clear()


# A core for each thread


@pytest.mark.skipif(sys.platform != "linux", reason="threads are kept on cores on Linux alone")
class TestOwnCores:
    @pytest.fixture(autouse=True)
    def _quiet(self, monkeypatch):
        affinity(monkeypatch, 4)
        monkeypatch.setattr(cores, "_running", lambda: 1)

    def test_one_for_each_where_all_are_taken(self):
        assert own_cores(4) == [0, 1, 2, 3]

    @pytest.mark.parametrize("n_workers", [1, 2, 3, 5])
    def test_none_where_others_may_take_the_same(self, n_workers):
        assert own_cores(n_workers) == []

    def test_none_for_one_on_one(self, monkeypatch):
        affinity(monkeypatch, 1)
        assert own_cores(1) == []

    def test_none_beside_a_neighbour(self, monkeypatch):
        monkeypatch.setattr(cores, "_running", lambda: 2)
        assert own_cores(4) == []

    def test_none_where_the_system_does_not_say(self, monkeypatch):
        monkeypatch.undo()
        monkeypatch.setattr(cores, "_read", lambda path: "")
        assert cores._running() == math.inf

    def test_ctrl_c_as_a_file_of_the_system_is_opened_leaves_none_open(self, monkeypatch):
        opened = []

        class Interrupted(io.FileIO):
            def __init__(self, path):
                super().__init__(path)
                opened.append(self)
                raise KeyboardInterrupt

        monkeypatch.undo()
        monkeypatch.setattr(cores, "FileIO", Interrupted)
        for read in cores._running, cores._cgroup_quota:
            with pytest.raises(KeyboardInterrupt):
                read()
        assert [file.closed for file in opened] == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are kept on cores on Linux alone")
def test_threads_keep_to_their_cores_and_nobody_else_does():
    before = os.sched_getaffinity(0)
    places: dict[int, set[int]] = {}

    def task(words, worker, n_workers):
        places[worker] = os.sched_getaffinity(0)
        return 1

    core = max(before)
    assert run_team(task, 2, cores=[core, core]) == (1, None)
    assert places == {0: {core}, 1: {core}}
    assert run_team(task, 2) == (1, None)
    assert places == {0: before, 1: before}
    assert run_team(task, 2, cores=[core, 1 << 20]) == (1, None)  # a core that there is not: as if none had been named
    assert places == {0: {core}, 1: before}
    assert os.sched_getaffinity(0) == before


class TestChoice:
    """Of a number of threads for the mini-batches of a training, by trials whose times are given here."""

    WORK = 100_000
    TRIAL = WORK_PER_TRIAL // WORK

    def run(self, choice: Choice, n: int, seconds: dict[int, float], most: int) -> list[tuple[int, int, int]]:
        portions = []
        for begin, end, n_workers in choice.portions(n, most):
            portions.append((begin, end, n_workers))
            choice.took(n_workers, end - begin, seconds[n_workers] * (end - begin))
        assert [portion[0] for portion in portions] == [0, *(portion[1] for portion in portions[:-1])]
        assert portions[-1][1] == n
        return portions

    @pytest.mark.parametrize(("alone", "together", "best"), [(1.0, 0.6, 2), (1.0, 0.97, 1), (1.0, 5.0, 1)])
    def test_both_are_tried_and_the_faster_goes_on(self, alone: float, together: float, best: int) -> None:
        choice, seconds = Choice(2, self.WORK), {1: alone, 2: together}
        t = self.TRIAL
        assert self.run(choice, 100 * t, seconds, 2) == [(0, t, 2), (t, 2 * t, 1), (2 * t, 100 * t, best)]
        other, close = 3 - best, max(alone, together) < 1.5 * min(alone, together)
        for chunks_between in (0, 1, 3, 3, 3, 3) if close else (0, 13, 15):
            for _ in range(chunks_between):
                assert self.run(choice, 100 * t, seconds, 2) == [(0, 100 * t, best)]
            assert self.run(choice, 100 * t, seconds, 2) == [(0, t, other), (t, 100 * t, best)], "tried again"

    def test_it_follows_the_machine(self) -> None:
        choice, t = Choice(2, self.WORK), self.TRIAL
        for _ in range(2):
            self.run(choice, 100 * t, {1: 1.0, 2: 0.6}, 2)
        self.run(choice, 100 * t, {1: 1.0, 2: 3.0}, 2)  # a neighbour took a core: this chunk is slow, the next is not
        assert self.run(choice, 100 * t, {1: 1.0, 2: 3.0}, 2) == [(0, 100 * t, 1)]

    def test_the_work_decides_where_a_trial_does_not_pay(self) -> None:
        assert self.run(Choice(2, self.WORK), 4 * self.TRIAL - 1, {1: 1.0}, 2) == [(0, 4 * self.TRIAL - 1, 1)]
        eager = Choice(2, self.WORK, eager=True)
        assert self.run(eager, 4 * self.TRIAL - 1, {2: 1.0}, 2) == [(0, 4 * self.TRIAL - 1, 2)]
        assert self.run(Choice(2, 1e9), 100, {2: 1.0}, 2) == [(0, 100, 2)]
        assert self.run(Choice(8, self.WORK), 1000 * self.TRIAL, {1: 1.0}, 1) == [(0, 1000 * self.TRIAL, 1)]

    def test_a_short_training_tries_nothing(self) -> None:
        choice, t = Choice(2, self.WORK), self.TRIAL
        assert self.run(choice, 5 * t, {1: 1.0}, 2) == [(0, 5 * t, 1)]
        assert self.run(choice, 5 * t, {1: 1.0, 2: 0.5}, 2) == [(0, t, 2), (t, 5 * t, 2)], "one is known by now"

    def test_a_training_goes_on_from_the_last_one_of_its_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "_experiences", {})
        seconds, n = {1: 1.0, 2: 0.6}, 6 * self.TRIAL
        assert len(self.run(Choice(2, self.WORK, kind="a"), n, seconds, 2)) == 3, "both are tried"
        assert len(self.run(Choice(2, self.WORK, kind="a"), n, seconds, 2)) == 2, "the other for a second time"
        for _ in range(13):
            assert self.run(Choice(2, self.WORK, kind="a"), n, seconds, 2) == [(0, n, 2)]
        assert len(self.run(Choice(2, self.WORK, kind="a"), n, seconds, 2)) == 2, "and again now and then"
        assert self.run(Choice(2, self.WORK, kind="a"), 1, seconds, 2) == [(0, 1, 2)], "too short for a trial"

    def test_no_other_training_knows_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "_experiences", {})
        seconds, n = {1: 1.0, 2: 0.6, 3: 0.5}, 6 * self.TRIAL
        self.run(Choice(2, self.WORK, kind="a"), n, seconds, 2)
        for other in Choice(2, self.WORK, kind="b"), Choice(2, self.WORK), Choice(3, self.WORK, kind="a"):
            assert len(self.run(other, n, seconds, other.most)) == 3
        started_before = Choice(2, self.WORK, kind="c")
        self.run(Choice(2, self.WORK, kind="c"), n, seconds, 2)
        assert len(self.run(started_before, n, seconds, 2)) == 3, "nor one that runs at the same time"

    def test_only_so_many_kinds_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "_experiences", {})
        for kind in range(1000):
            self.run(Choice(2, self.WORK, kind=kind), 6 * self.TRIAL, {1: 1.0, 2: 0.6}, 2)
        assert 1 <= len(cores._experiences) <= 256
