"""Fixtures that start real servers, for all tests."""

pytest_plugins = ["tests.services.slapd", "tests.services.brokers"]
