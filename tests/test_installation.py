"""What is installed: the package with its data and its type marker, and nothing else."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import distribution, files

import pytest


@pytest.mark.parametrize("name", ["py.typed", "datasets/digits.csv.gz"])
def test_file_is_installed(name: str) -> None:
    assert resources.files("fastbp").joinpath(name).is_file()


def test_nothing_but_the_package_is_installed() -> None:
    paths = [path for path in files("fastbp") or [] if path.parts[0] != ".."]  # ../../../bin/fastbp
    if not any(path.parts[0] == "fastbp" for path in paths):
        pytest.skip("this is an editable installation: a link to the checkout")
    assert {path.parts[0] for path in paths} == {"fastbp", f"fastbp-{distribution('fastbp').version}.dist-info"}
    assert not [path for path in paths if "tests" in path.parts]


def test_dependencies_have_lower_bounds_and_no_upper_ones() -> None:
    for requirement in distribution("fastbp").requires or []:
        if "extra ==" not in requirement:
            assert ">=" in requirement, requirement
            assert "<" not in requirement, requirement
