"""Fixtures that start real servers, for all tests."""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.services.slapd",
    "tests.services.brokers",
    "tests.services.slurm",
    "tests.services.sge",
    "tests.services.sshd",
    "tests.services.gram",
    "tests.services.gridftp",
    "tests.services.xrootd",
]
pytest.register_assert_rewrite("tests.services.transfers")

# How long an example takes says more of what else the machine does than of our code.
settings.register_profile("gridmad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gridmad")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report that a worker of xdist can send, though a test logs bytes that are no text."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
