"""Jobs of a real GRAM5, watched by their numbers: `--peek` of gw_em_mad_prews."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.drivers import Site, Subject, gatekeeper
from tests.peek_user import User
from tests.services.ports import reserve_port
from tests.services.rabbitmq import RabbitMQ
from tests.services.test_live_output import digest, peek
from tests.services.watched import JOBS, PATIENCE, ended, somebody, watch_jobs

pytestmark = pytest.mark.timeout(300)

SHORT = '&(executable="/bin/sh")(arguments="-c" "exit {code}")'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A gatekeeper, whose jobs are at home elsewhere than the driver."""
    with Subject("gw_em_mad_prews", gatekeeper).site(tmp_path) as site:
        variables = (site.location / "etc/gwrc").read_text()
        site.write("etc/gwrc", f"{variables}MSGPEEK_LINGER={PATIENCE}\n")
        yield site


@pytest.fixture
def user(rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[User]:
    with somebody(rabbitmq, tmp_path) as one:
        yield one


def wait_for_files(folder: Path, count: int) -> None:
    end = time.monotonic() + PATIENCE
    while len(list(folder.glob("*"))) != count:
        assert time.monotonic() < end, f"there are not {count} files in {folder}"
        time.sleep(0.05)


def test_jobs_are_watched_by_what_was_fetched_once(
    site: Site, rabbitmq: RabbitMQ, user: User
) -> None:
    home = site.home
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        # A driver is nice, and jobs wait some seconds only for what it has fetched for them.
        path = site.write("16", SHORT.format(code=0))
        gwd.ask_and_wait(f"SUBMIT 16 localhost/jobmanager-fork {path}", seconds=PATIENCE)
        wait_for_files(home / ".gridmad/files", 2)
        copied = watch_jobs(site, user, gwd, "localhost/jobmanager-fork")
    assert list(home.glob(".msgpeek-*")) == [copied]
    fetched = list((home / ".gridmad/files").iterdir())
    assert len(fetched) == 2  # with the login
    for path in fetched:
        assert path.stat().st_mode & 0o777 == 0o600
        assert digest(path) == path.name
    assert not list(home.glob("gram_scratch_*"))


def test_where_nothing_can_be_kept_jobs_run_as_ever(site: Site, rabbitmq: RabbitMQ) -> None:
    (site.home / ".gridmad").write_text("in the way")
    log = site.folder / "driver.log"
    site.arguments += f" --log-file {log}"
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        for job, code in JOBS.items():
            path = site.write(str(job), SHORT.format(code=code))
            assert gwd.ask_and_wait(
                f"SUBMIT {job} localhost/jobmanager-fork {path}", seconds=PATIENCE
            )
            assert ended(gwd, job) == f"DONE:{code}"
    told = [line for line in log.read_text().splitlines() if "does not get the inputs" in line]
    assert len(told) == 1
    assert "ended with exit code 1" in told[0]


def test_where_the_firewall_lets_only_callbacks_in_jobs_run_as_ever(
    site: Site, rabbitmq: RabbitMQ
) -> None:
    log = site.folder / "driver.log"
    site.arguments += f" --log-file {log}"
    port = reserve_port()
    variables = (site.location / "etc/gwrc").read_text()
    site.write("etc/gwrc", f"{variables}GLOBUS_TCP_PORT_RANGE={port},{port}\n")
    with peek(site, rabbitmq.url, rabbitmq) as gwd:
        path = site.write("17", SHORT.format(code=5))
        assert gwd.ask_and_wait(f"SUBMIT 17 localhost/jobmanager-fork {path}", seconds=PATIENCE)
        assert ended(gwd, 17) == "DONE:5"
    assert "no port is free for job managers to fetch files from" in log.read_text()
    assert not list(site.home.glob(".gridmad/files/*"))
