"""Jobs over ssh: gw_em_mad_ssh against one `ssh host command` a job over a kept connection."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.conftest import IS_QUICK, Contest, Scoreboard
from bench.players import BIN, Player
from tests.services import sshd
from tests.services.required import skip_without

JOB = """<job> <executable>/bin/{program}</executable> <argument>{word}</argument>\
<environment> <name>GW_JOB_ID</name> <value>1</value></environment> \
<stdout>stdout.bench</stdout> <stderr>stderr.bench</stderr> <count>1</count></job>"""
HOST = "localhost"


class Ssh:
    """OpenSSH's client, over one connection (ControlMaster)."""

    def __init__(self, server: sshd.Sshd) -> None:
        socket = server.folder / "socket"
        self._words = [
            *("ssh", "-F", str(server.home / ".ssh" / "config"), "-S", str(socket)),
            *("-i", str(server.identity), "-o", f"UserKnownHostsFile={server.known_hosts}"),
        ]
        subprocess.run([*self._words, "-f", "-N", "-M", HOST], check=True)

    def run(self, command: str) -> str:
        return subprocess.run(
            [*self._words, HOST, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def close(self) -> None:
        subprocess.run([*self._words, "-O", "exit", HOST], capture_output=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    problem = sshd.missing()
    if problem:
        skip_without("sshd", problem)
    with sshd.Sshd(tmp_path / "sshd", tmp_path / "home") as one:
        yield one


@pytest.fixture
def ssh(server: sshd.Sshd) -> Iterator[Ssh]:
    client = Ssh(server)
    yield client
    client.close()


def driver(server: sshd.Sshd, *words: str) -> Player:
    return Player(
        [str(BIN / "gw_em_mad_ssh"), "--interval", "3600", *words], {"HOME": str(server.home)}
    )


def describe(folder: Path, program: str, word: str) -> Path:
    path = folder / f"{program}.rsl"
    path.write_text(JOB.format(program=program, word=word))
    return path


def submit(player: Player, count: int, description: Path) -> list[str]:
    """The contacts of that many jobs, all ordered at once."""
    player.send(b"".join(b"SUBMIT %d localhost %b\n" % (n, os.fsencode(description))
                         for n in range(count)))  # fmt: skip
    lines = player.collect(b"\nSUBMIT ", count - 1).decode().splitlines()
    return [line.split()[3] for line in lines if line.startswith("SUBMIT")]


def test_submit(contest: Contest, server: sshd.Sshd, ssh: Ssh, tmp_path: Path) -> None:
    """A job that leaves its exit code in a file, and nobody waits for it."""
    count = 40 if IS_QUICK else 200
    description = describe(tmp_path, "true", "x")
    command = "setsid -f sh -c '/bin/true; echo $? >$HOME/{}' </dev/null >/dev/null 2>&1"
    with driver(server) as player:
        player.initialise()
        submit(player, 10, description)
        contest.run(
            "SUBMIT over ssh",
            lambda: submit(player, count, description),
            lambda: [ssh.run(command.format(number)) for number in range(count)],
            against="one ssh a job (ControlMaster)",
            floor=2,
            ambition=5,
            rounds=4,
            note=lambda seconds: f"{count / seconds:.0f} a second",
        )


def test_query(scoreboard: Scoreboard, server: sshd.Sshd, ssh: Ssh, tmp_path: Path) -> None:
    """The states of jobs that run: one question for all, as after a restart of the driver."""
    count, asked = (100, 10) if IS_QUICK else (1000, 50)
    description = describe(tmp_path, "sleep", "600")
    with driver(server) as player:
        player.initialise()
        contacts = submit(player, count, description)
    try:
        ours, theirs = [], []
        for _ in range(3):
            with driver(server) as player:
                player.initialise()
                start = time.perf_counter()
                player.send("".join(
                    f"RECOVER {number} {contact} -\n" for number, contact in enumerate(contacts)
                ).encode())  # fmt: skip
                answers = player.collect(b"ACTIVE", count)
                ours.append((time.perf_counter() - start) / count)
            assert answers.count(b"RECOVER") == count
            start = time.perf_counter()
            for contact in contacts[:asked]:
                ssh.run(f"cat $HOME/.gridmad/jobs/{contact.rpartition('/')[2]}.run")
            theirs.append((time.perf_counter() - start) / asked)
    finally:
        with driver(server, "--grace", "1") as player:
            player.initialise()
            player.send("".join(
                f"RECOVER {number} {contact} -\nCANCEL {number} - -\n"
                for number, contact in enumerate(contacts)
            ).encode())  # fmt: skip
            player.collect(b"DONE:143", count)
    scoreboard.score(
        f"the states of {count} jobs over ssh",
        min(theirs) / min(ours),
        against="one ssh a job (ControlMaster)",
        floor=10,
        ambition=50,
        note=f"{min(ours) * count * 1000:.0f} ms, with the connection",
    )
