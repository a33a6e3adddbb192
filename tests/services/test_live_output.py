"""Jobs of real drivers, watched by their numbers: `--peek`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import SUBJECTS, Site
from tests.conformance.gwd import Player
from tests.peek_user import User, finish, last_line, read_until
from tests.services.rabbitmq import RabbitMQ

DRIVERS = ["gw_em_mad_fork", "gw_em_mad_slurm"]
JOB = 17
PRINTER = """\
env >env.$1
head -c 2000000 /dev/urandom | tee copy.$1
seq 20000 | tee copy2.$1 >&2
exit $2
"""


@pytest.fixture(params=DRIVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The surroundings of each driver in turn."""
    (subject,) = [one for one in SUBJECTS if one.name == request.param]
    with subject.site(tmp_path) as site:
        yield site


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[Site]:
    (subject,) = [one for one in SUBJECTS if one.name == "gw_em_mad_fork"]
    with subject.site(tmp_path) as site:
        site.arguments = "--grace 2"
        yield site


@pytest.fixture
def user(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[User]:
    """Somebody elsewhere who knows the broker's login, and the number of the job."""
    (tmp_path / "elsewhere").mkdir()
    one = User(rabbitmq, tmp_path / "elsewhere")
    one.environment["MSGPEEK_ID"] = str(JOB)
    yield one
    one.close()


def peek(site: Site, url: str, broker: RabbitMQ | None = None) -> Player:
    """The driver with --peek, which has the login from its gwrc file."""
    site.arguments += f" --peek {url}"
    if broker is not None:
        file = site.location / "etc/gwrc"
        before = file.read_text() if file.exists() else ""
        site.write(
            "etc/gwrc",
            f"{before}MSGPEEK_USER={broker.login}\nMSGPEEK_PASSWORD={broker.password}\n",
        )
    gwd = site.play()
    gwd.initialise()
    return gwd


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def submit(site: Site, gwd: Player, path: Path, job: int = JOB) -> None:
    assert gwd.ask_and_wait(f"SUBMIT {job} host/jobmanager-fork {path}", seconds=60)
    assert job in gwd.contacts, gwd.answers


def ended(gwd: Player, job: int = JOB) -> str:
    """The final state that was told of a job."""
    gwd.wait(
        lambda: any(state.startswith(("DONE", "FAIL")) for state in gwd.told.get(job, [])),
        "the job does not end",
        60,
    )
    return gwd.told[job][-1]


def outputs(site: Site, name: str) -> tuple[Path, Path]:
    _, folder = site.job_folder(int(name))
    return folder / "stdout.wrapper", folder / "stderr.wrapper"


def test_a_job_is_watched_by_its_number(site: Site, rabbitmq: RabbitMQ, user: User) -> None:
    script = site.write("libexec/printer.sh", f"#!/bin/sh\ncd $(dirname $0)\n{PRINTER}")
    script.chmod(0o755)
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        client = user.start("--wait", "-F", "out.log")
        submit(site, gwd, site.description(str(JOB), str(script), "a", "3"))
        assert ended(gwd) == "DONE:3"
        code, out, err = finish(client)
        assert (code, out) == (3, ""), err
        assert last_line(err) == "msgpeek: the job ended with exit code 3"
    folder = script.parent
    for copy, seen, own in zip(
        ("copy.a", "copy2.a"), ("out.log", "out.log.err"), outputs(site, str(JOB)), strict=True
    ):
        assert digest(folder / copy) == digest(user.folder / seen) == digest(own)
    assert "MSGPEEK" not in (folder / "env.a").read_text()
    assert rabbitmq.password not in (folder / "env.a").read_text()


def test_every_attempt_is_watched_by_the_same_number(
    fork: Site, rabbitmq: RabbitMQ, user: User
) -> None:
    with peek(fork, rabbitmq.url, rabbitmq) as gwd:
        for attempt in ("one", "two"):
            submit(fork, gwd, fork.script(str(JOB), f"echo {attempt}; sleep 1.5; exit 4"))
            client = user.start("--wait")
            assert read_until(client, b"\n") == attempt.encode() + b"\n"
            assert ended(gwd) == "DONE:4"
            assert finish(client)[0] == 4
