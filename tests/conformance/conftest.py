"""Options and fixtures of the conformance suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject, chosen


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--driver", metavar="NAME", help="check this driver only, in the table or not")
    parser.addoption("--driver-arguments", metavar="TEXT", help="its arguments, as in gwd.conf")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with `site` runs for every driver, one marked `family` for those of a family."""
    if "subject" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    subjects = chosen(option("--driver", None), option("--driver-arguments", None))
    marker = metafunc.definition.get_closest_marker("family")
    subjects = [
        subject
        for subject in subjects
        if (not subject.is_variant if marker is None else subject.family in marker.args)
    ]
    grid = pytest.mark.grid
    metafunc.parametrize(
        "subject",
        [pytest.param(subject, marks=[grid] if subject.is_slow else []) for subject in subjects],
        ids=str,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "family(name): the drivers that a test is for")


@pytest.fixture
def site(subject: Subject, tmp_path: Path) -> Iterator[Site]:
    """The surroundings of the driver under test."""
    with subject.site(tmp_path) as site:
        yield site
