"""Fixtures that start real servers, for all tests."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.services.slapd",
    "tests.services.brokers",
    "tests.services.slurm",
    "tests.services.sge",
    "tests.services.sshd",
    "tests.services.gram",
]

# How long an example takes says more of what else the machine does than of our code.
settings.register_profile("gridmad", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gridmad")
