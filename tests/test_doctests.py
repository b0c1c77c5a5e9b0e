"""Every example in the README and in a docstring of the installed package gives the output it shows."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastbp

README = Path(__file__).resolve().parents[1] / "README.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def docstring_examples() -> list[doctest.DocTest]:
    names = ["fastbp", *(module.name for module in pkgutil.walk_packages(fastbp.__path__, "fastbp."))]
    modules = [importlib.import_module(name) for name in names if not name.endswith(".__main__")]  # an import runs it
    return [test for module in modules for test in doctest.DocTestFinder().find(module) if test.examples]


def readme_examples() -> doctest.DocTest:
    """Return the README's Python blocks as one session; all other lines become blank, so that line numbers stay."""
    kept: list[str] = []
    fence = ""
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
            kept.append("")
        else:
            kept.append(line if re.match(r"```(python|pycon)\b", fence) else "")
    return doctest.DocTestParser().get_doctest("\n".join(kept) + "\n", {}, README.name, str(README), 0)


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    if report:
        pytest.fail("".join(report), pytrace=False)


@pytest.mark.parametrize("test", docstring_examples(), ids=lambda test: test.name)
def test_docstring(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(test)


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = readme_examples()
    assert test.examples
    monkeypatch.chdir(tmp_path)
    run(test)


def test_wrong_output_fails() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    with pytest.raises(pytest.fail.Exception, match="Expected:\n    3\nGot:\n    2"):
        run(test)
