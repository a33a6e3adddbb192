"""Whether a test may be skipped because its server is not here."""

import os
from typing import NoReturn

import pytest


def skip_without(server: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where $GRIDMAD_REQUIRE (`slapd,gwd`) names the server."""
    if server in os.environ.get("GRIDMAD_REQUIRE", "").split(","):
        pytest.fail(f"{server} is required, but {reason}", pytrace=False)
    pytest.skip(reason)
