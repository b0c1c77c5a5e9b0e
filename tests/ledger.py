"""The ledger: of each hazard that the library promises to stand, the cases that a run of the tests tried and that held.

A pytest plugin. A test of a hazard says which line of the promise it checks, and what it does::

    @pytest.mark.hazard("failure", "the k-th start of a thread refused")
    def test_refused_starts(cases):
        for k in range(8):
            with cases.one(f"k = {k}"):
                assert ...                    # whatever is raised here: this case did not hold, the next is tried
        cases.count(100, held, "what else")   # cases that a subprocess tried

It fails where not all cases held, and where none was tried. A marked test that does not take `cases` is one case
itself. Tests with the same line and words are one row of the table that ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from cases import Cases

LINES = {  # the promise, in the order of the table
    "threads": "many Python threads train and predict at once",
    "processes": "forks, and pools of processes of every kind",
    "oversubscription": "more threads than cores",
    "interrupt": "Ctrl-C at any moment",
    "failure": "threads, memory, workers and callbacks that fail",
    "non-finite": "a loss that overflows",
    "bad input": "arrays of every kind, right or wrong",
    "cache": "damaged, missing, full, contended",
    "memory": "no growth, no allocation per mini-batch",
    "denormals": "the floating-point mode",
}


@dataclass
class Row:
    """One row of the table."""

    tried: int = 0
    held: int = 0
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def place_of(item: pytest.Item) -> tuple[str, str] | None:
    """Return the line and the words of a test of a hazard."""
    marker = item.get_closest_marker("hazard")
    if marker is None:
        return None
    line, what = marker.args
    if line not in LINES:
        raise pytest.UsageError(f"{item.nodeid}: hazard {line!r} is not one of {', '.join(LINES)}")
    return line, what


class Ledger:
    """The plugin: counts, and prints the table."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "hazard(line, what): a row of the table of hazards that this test fills")

    @pytest.fixture
    def cases(self, request: pytest.FixtureRequest) -> Cases:
        """Return where a test of a hazard counts its cases."""
        assert place_of(request.node), "a test that counts cases says of what: pytest.mark.hazard(line, what)"
        return Cases()

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Any:
        result = yield
        if isinstance(cases := pyfuncitem.funcargs.get("cases"), Cases):
            cases.check()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        place = place_of(item)
        if place is None or (report.when != "call" and report.passed):
            return report
        row = self.rows.setdefault(place, Row())
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            row.skipped.append(reason.removeprefix("Skipped: "))
            return report
        cases = getattr(item, "funcargs", {}).get("cases")
        if report.when != "call" or not isinstance(cases, Cases):  # a fixture that fails is a case that did not hold
            cases = Cases()
            cases.count(1, int(report.passed))
        elif report.failed and not cases.failures:  # it ended between two cases
            cases.count(1, 0)
        row.tried += cases.tried
        row.held += cases.held
        row.remarks += cases.remarks
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        terminalreporter.section("hazards: cases tried, cases held")
        order = list(LINES)
        for line, what in sorted(self.rows, key=lambda place: order.index(place[0])):
            row = self.rows[line, what]
            text = f"{line:16}  {what:70}  {row.tried:6}  {row.held:6}"
            if row.remarks:
                text += f"  {'; '.join(row.remarks)}"
            if row.skipped:
                text += f"  skipped: {'; '.join(dict.fromkeys(row.skipped))}"
            if row.held < row.tried:
                text += "  BROKEN"
            terminalreporter.write_line(text, red=row.held < row.tried)
        tried, held = (sum(getattr(row, name) for row in self.rows.values()) for name in ("tried", "held"))
        terminalreporter.write_line(f"{'all':16}  {'':70}  {tried:6}  {held:6}")
