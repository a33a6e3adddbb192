"""Jobs of real drivers, watched by their numbers: `--peek`."""

import hashlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conformance.drivers import SUBJECTS, Site, Subject
from tests.conformance.gwd import Player
from tests.peek_user import User, finish, last_line, read_until
from tests.services.ports import reserve_port
from tests.services.rabbitmq import RabbitMQ
from tests.services.sshd import SshdMaker

DRIVERS = ["gw_em_mad_fork", "gw_em_mad_slurm"]
JOB = 17
PRINTER = """\
env >env.$1
head -c 400000 /dev/urandom | tee copy.$1
seq 20000 | tee copy2.$1 >&2
exit $2
"""


@pytest.fixture(params=DRIVERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The surroundings of each driver in turn."""
    (subject,) = [one for one in SUBJECTS if str(one) == request.param]
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
    # The job side of a number that was watched just now may still be leaving on a busy machine.
    job = JOB + 100 * DRIVERS.index(site.subject.name)
    user.environment["MSGPEEK_ID"] = str(job)
    script = site.write("libexec/printer.sh", f"#!/bin/sh\ncd $(dirname $0)\n{PRINTER}")
    script.chmod(0o755)
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        client = user.start("--wait", "-F", "out.log")
        submit(site, gwd, site.description(str(job), str(script), "a", "3"), job)
        assert ended(gwd, job) == "DONE:3"
        code, out, err = finish(client)
        assert (code, out) == (3, ""), err
        assert last_line(err) == "msgpeek: the job ended with exit code 3"
    folder = script.parent
    for copy, seen, own in zip(
        ("copy.a", "copy2.a"), ("out.log", "out.log.err"), outputs(site, str(job)), strict=True
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


def nobody(silent: socket.socket) -> str:
    return f"stomp://127.0.0.1:{reserve_port()}"


def nameless(silent: socket.socket) -> str:
    return "stomp://no.such.host.invalid"


def mute(silent: socket.socket) -> str:
    """As behind a firewall: the connection is made, and that is all."""
    return f"stomp://127.0.0.1:{silent.getsockname()[1]}"


def wrong_protocol(silent: socket.socket) -> str:
    return f"stomp+ssl://127.0.0.1:{silent.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("broker", [nobody, nameless, mute, wrong_protocol])
def test_without_a_broker_jobs_run_as_ever(
    fork: Site, silent: socket.socket, broker: Callable[[socket.socket], str]
) -> None:
    with peek(fork, broker(silent)) as gwd:
        submit(fork, gwd, fork.script(str(JOB), "echo out; echo err >&2; exit 5"))
        assert ended(gwd) == "DONE:5"
        assert [path.read_text() for path in outputs(fork, str(JOB))] == ["out\n", "err\n"]


def test_a_cancelled_job_leaves_nothing(fork: Site, rabbitmq: RabbitMQ, user: User) -> None:
    script = "echo go; trap '' TERM; sleep 1000 & wait; wait"
    with peek(fork, rabbitmq.url, rabbitmq) as gwd:
        client = user.start("--wait")
        submit(fork, gwd, fork.script(str(JOB), "echo go; sleep 1000"))
        assert read_until(client, b"go\n") == b"go\n"
        gwd.ask_and_wait(f"CANCEL {JOB} - -")
        assert ended(gwd) == "DONE:143"
        assert finish(client)[0] == 143
        # One that takes no notice of TERM is killed, and msgpeek with it.
        submit(fork, gwd, fork.script("18", script), 18)
        wait_for_text(outputs(fork, "18")[0], "go\n")
        gwd.ask_and_wait("CANCEL 18 - -")
        assert ended(gwd, 18) in ("DONE:137", "DONE:143")
        gwd.finalise()
        assert gwd.leftovers() == []


def test_a_missing_executable_is_refused_as_ever(fork: Site, rabbitmq: RabbitMQ) -> None:
    with peek(fork, rabbitmq.url, rabbitmq) as gwd:
        path = fork.description(str(JOB), "/no/such/program")
        (answer,) = gwd.ask_and_wait(f"SUBMIT {JOB} host/jobmanager-fork {path}")
        assert answer == (
            f"SUBMIT {JOB} FAILURE the executable cannot be run: "
            "/no/such/program: No such file or directory"
        )


def test_settings_that_are_wrong_keep_no_job_from_running(fork: Site, tmp_path: Path) -> None:
    config = tmp_path / "msgpeek.toml"
    config.write_text('password = "seen by all"\n')
    config.chmod(0o644)
    fork.arguments += f" --peek-config {config}"
    with peek(fork, "stomp://127.0.0.1") as gwd:
        submit(fork, gwd, fork.script(str(JOB), "exit 6"))
        assert ended(gwd) == "DONE:6"


# ---------------------------------------------------------------- brought to another host


class Away(NamedTuple):
    """A host whose home is its own, without an installed msgpeek, and a driver that reaches it."""

    site: Site
    home: Path
    bundles: Path
    """What drivers have brought to it."""


@pytest.fixture
def away(tmp_path: Path, sshd: SshdMaker) -> Iterator[Away]:
    home = tmp_path / "away"
    server = sshd(home, environment={"PATH": "/usr/bin:/bin"})
    (subject,) = [one for one in SUBJECTS if one.name == "gw_em_mad_ssh"]
    with subject_without_host(subject).site(tmp_path) as site:
        (site.home / ".ssh").symlink_to(home / ".ssh")
        site.arguments = f"--interval 0.3 --identity {server.identity}"
        site.arguments += f" --known-hosts {server.known_hosts}"
        yield Away(site, home, home / ".gridmad/files")


def subject_without_host(subject: Subject) -> Subject:
    return replace(subject, prepare=lambda site: None)


def test_over_ssh_a_job_is_watched_where_nothing_is_installed(
    away: Away, rabbitmq: RabbitMQ, user: User
) -> None:
    site, home = away.site, away.home
    script = home / "printer.sh"
    script.write_text(f"#!/bin/sh\ntr '\\0' '\\n' </proc/$PPID/cmdline >by.$1\n{PRINTER}")
    script.chmod(0o755)
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        seen = []
        for job, name, code in ((JOB, "a", 3), (JOB + 1, "b", 4)):
            client = user.start("-I", str(job), "--wait", "-F", f"{name}.log")
            text = f'&(executable="printer.sh")(arguments="{name}" "{code}")(stdout="out.{name}")'
            path = site.write(name, f'{text}(stderr="err.{name}")')
            assert gwd.ask_and_wait(f"SUBMIT {job} localhost {path}", seconds=60)
            assert ended(gwd, job) == f"DONE:{code}"
            assert finish(client)[0] == code
            for copy, log, own in (
                (f"copy.{name}", f"{name}.log", f"out.{name}"),
                (f"copy2.{name}", f"{name}.log.err", f"err.{name}"),
            ):
                assert digest(home / copy) == digest(user.folder / log) == digest(home / own)
            (copied,) = home.glob(".msgpeek-*")
            assert copied.name in (home / f"by.{name}").read_text().splitlines()
            (bundle,) = away.bundles.iterdir()
            seen.append((bundle.name, bundle.stat().st_ino))
        # What is uploaded again is another file.
        assert seen[0] == seen[1]
    assert bundle.stat().st_mode & 0o777 == 0o600
    assert bundle.name == digest(bundle)
    assert digest(copied) == bundle.name


def test_over_ssh_without_a_broker_jobs_run_as_ever(away: Away, silent: socket.socket) -> None:
    with peek(away.site, mute(silent)) as gwd:
        path = away.site.write(
            "job", '&(executable="/bin/sh")(arguments="-c" "echo out; exit 5")(stdout="out")'
        )
        assert gwd.ask_and_wait(f"SUBMIT {JOB} localhost {path}", seconds=60)
        assert ended(gwd) == "DONE:5"
    assert (away.home / "out").read_text() == "out\n"


def test_over_ssh_a_job_runs_where_nothing_can_be_brought(away: Away) -> None:
    with peek(away.site, f"stomp://127.0.0.1:{reserve_port()}") as gwd:
        for job, code in ((JOB, 5), (JOB + 1, 6)):
            path = away.site.write(
                "job", f'&(executable="/bin/sh")(arguments="-c" "exit {code}")(stdout="out")'
            )
            assert gwd.ask_and_wait(f"SUBMIT {job} localhost {path}", seconds=60)
            assert ended(gwd, job) == f"DONE:{code}"
            if job == JOB:
                shutil.rmtree(away.bundles)
                away.bundles.write_text("in the way")
                (copied,) = away.home.glob(".msgpeek-*")
                copied.unlink()
    assert not list(away.home.glob(".msgpeek-*"))


def wait_for_text(path: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < end, f"{text!r} does not come to {path}"
        time.sleep(0.01)
