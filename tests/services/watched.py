"""Jobs that a resource far from the driver runs, watched by their numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.drivers import Site
from tests.conformance.gwd import Player
from tests.peek_user import User, finish
from tests.services.rabbitmq import RabbitMQ
from tests.services.test_live_output import PRINTER, digest

PATIENCE = 90.0
JOBS = {17: 3, 18: 4}
"""Exit codes by the numbers of jobs."""


@contextmanager
def somebody(rabbitmq: RabbitMQ, folder: Path) -> Iterator[User]:
    """Somebody elsewhere who knows the broker's login."""
    (folder / "elsewhere").mkdir()
    one = User(rabbitmq, folder / "elsewhere")
    yield one
    one.close()


def ended(gwd: Player, job: int) -> str:
    """The final state that was told of a job."""
    gwd.wait(lambda: gwd.has_ended(job), f"job {job} does not end", PATIENCE)
    return gwd.last_state(job)


def watch_jobs(site: Site, user: User, gwd: Player, resource: str) -> Path:
    """Run JOBS on `resource`, each watched from its beginning: what is seen is what it printed,
    and it ends as it would unwatched.  The one bundle at the jobs' home, which all were run by.
    """
    home = site.home
    script = home / "printer.sh"
    script.write_text(f"#!/bin/sh\ntr '\\0' '\\n' </proc/$PPID/cmdline >by.$1\n{PRINTER}")
    script.chmod(0o755)
    clients = {}
    lines = []
    for job, code in JOBS.items():
        clients[job] = user.start("-I", str(job), "--wait", "-F", f"{job}.log")
        text = f'&(executable="printer.sh")(arguments="{job}" "{code}")(stdout="out.{job}")'
        path = site.write(str(job), f'{text}(stderr="err.{job}")')
        lines.append(f"SUBMIT {job} {resource} {path}")
    answers = gwd.ask_and_wait(*lines, seconds=PATIENCE)
    assert all(" SUCCESS " in answer for answer in answers), answers
    for job, code in JOBS.items():
        assert ended(gwd, job) == f"DONE:{code}"
        assert finish(clients[job])[0] == code
        for copy, log, own in (
            (f"copy.{job}", f"{job}.log", f"out.{job}"),
            (f"copy2.{job}", f"{job}.log.err", f"err.{job}"),
        ):
            assert digest(home / copy) == digest(user.folder / log) == digest(home / own)
    (copied,) = home.glob(".msgpeek-*.pyz")
    for job in JOBS:
        assert copied.name in (home / f"by.{job}").read_text().splitlines()
        assert "MSGPEEK" not in (home / f"env.{job}").read_text()
    return copied
