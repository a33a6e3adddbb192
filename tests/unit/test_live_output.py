"""How the login for a broker comes to jobs."""

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from gridmad import live_output
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import Submission
from gridmad.execution.watchable import Peek
from gridmad.live_output import LiveOutput

JOB = Submission("17", "host", "", JobDescription("/bin/true"))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """A home where msgpeek's bundle is there already."""

    async def make(peek: Peek, login: bytes) -> None:
        Path(peek.bundle).parent.mkdir(parents=True, exist_ok=True)
        if login:
            live_output._keep_login(Path(peek.login), login)
        Path(peek.bundle).touch()

    monkeypatch.setattr(live_output, "_make", make)
    return {"HOME": str(tmp_path), "MSGPEEK_USER": "me", "MSGPEEK_PASSWORD": "a secret"}


def watched(environment: Mapping[str, str], *, hides: bool) -> JobDescription:
    """A job as it is submitted by a driver that stages inputs."""

    async def test() -> JobDescription:
        options = argparse.Namespace(peek="stomp://broker", peek_config=None)
        output = LiveOutput(options, dict(environment), is_staged=True, hides_environment=hides)
        output.start()
        try:
            (found,) = await output.watched([JOB])
        finally:
            output.stop()
        assert isinstance(found, Submission)
        return found.description

    return asyncio.run(test())


def test_it_is_in_the_environment_where_that_is_hidden(environment: Mapping[str, str]) -> None:
    job = watched(environment, hides=True)
    assert job.environment == {"MSGPEEK_USER": "me", "MSGPEEK_PASSWORD": "a secret"}
    assert not [file for file in job.inputs if "login" in file.url]


def test_elsewhere_it_is_in_a_file_of_which_no_digest_tells_anything(
    environment: Mapping[str, str],
) -> None:
    job = watched(environment, hides=False)
    assert job.environment == {}
    assert not any("secret" in word for word in job.arguments)
    (file,) = (file for file in job.inputs if "login" in file.url)
    path = Path(file.url)
    content = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    user, password, chance = content.splitlines()
    assert (user, password) == ("me", "a secret")
    assert len(chance) >= 32
    # It stays what it was, so that what resources have of it does; but for another password.
    watched(environment, hides=False)
    assert path.read_text() == content
    watched({**environment, "MSGPEEK_PASSWORD": "new"}, hides=False)
    assert path.read_text().startswith("me\nnew\n")
