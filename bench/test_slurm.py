"""Jobs on a real Slurm: gw_em_mad_slurm against one sbatch and one squeue for each job."""

import os
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.conftest import IS_QUICK, Scoreboard
from bench.players import BIN, Player
from tests.services import slurm
from tests.services.slurm import SlurmCluster

COUNT = 100 if IS_QUICK else 1000
INTERVAL = 20.0
MINUTE = 3
"""Intervals of that length."""
QUESTIONS = 4
"""That a thousand jobs may cost in a minute."""
JOB = """<job> <executable>{}</executable> <stdout>out</stdout> <stderr>err</stderr> \
<count>1</count></job>"""
TOOLS = ("sbatch", "squeue", "scancel", "sacct")


class Run(NamedTuple):
    """What it took to submit jobs and to follow them to their ends."""

    submission: float
    """Seconds until all were submitted."""
    all: float
    """Seconds until all ends were told."""
    tools: Counter[str]
    cpu: float
    """Seconds of the driver and its tools."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Its jobs wait until they are released all at once, so that only drivers are at work."""
    if problem := slurm.missing():
        pytest.skip(problem)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def counted(folder: Path) -> tuple[str, Path]:
    """A PATH on which each of Slurm's tools notes that it was called, and the notes."""
    bin_, notes = folder / "bin", folder / "calls"
    bin_.mkdir()
    notes.touch()
    for tool in TOOLS:
        path = bin_ / tool
        path.write_text(f'#!/bin/sh\necho {tool} >>{notes}\nexec /usr/bin/{tool} "$@"\n')
        path.chmod(0o755)
    return f"{bin_}:{os.environ['PATH']}", notes


def followed(command: list[str], cluster: SlurmCluster, folder: Path) -> Run:
    """Submit all jobs and follow them; they begin when the last one was submitted."""
    folder.mkdir()
    path, notes = counted(folder)
    description = folder / "job.rsl"
    description.write_text(JOB.format("/bin/true"))
    environment = {**cluster.environment, "PATH": path, "HOME": str(folder)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    cluster.run("scontrol", "update", "PartitionName=short", "State=DOWN")
    with Player(command, environment, folder) as player:
        player.initialise()
        start = time.monotonic()
        requests = (f"SUBMIT {job} host {description}\n".encode() for job in range(COUNT))
        player.send(b"".join(requests))
        got = player.collect(b"SUBMIT ", COUNT)
        submitted = time.monotonic()
        assert got.count(b" SUCCESS ") == COUNT
        cluster.run("scontrol", "update", "PartitionName=short", "State=UP")
        already = got.count(b"DONE:0")
        player.collect(b"DONE:0", COUNT - already)
        ended = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tools = Counter(notes.read_text().split())
    return Run(submitted - start, ended - start, tools, cpu)


def test_many_jobs(cluster: SlurmCluster, tmp_path: Path, scoreboard: Scoreboard) -> None:
    """Submission, processes and processor time."""
    ours_command = [str(BIN / "gw_em_mad_slurm"), "--interval", f"{INTERVAL:g}"]
    naive = Path(__file__).parent / "baselines" / "single_slurm.py"
    ours = followed(ours_command, cluster, tmp_path / "ours")
    theirs = followed([sys.executable, str(naive), f"{INTERVAL:g}"], cluster, tmp_path / "theirs")
    against = "one sbatch and squeue a job"
    scoreboard.score(
        f"submission of {COUNT} jobs to Slurm",
        theirs.submission / ours.submission,
        against=against,
        floor=2,
        ambition=5,
        note=f"{COUNT / ours.submission:.0f} a second",
    )
    scoreboard.score(
        f"processes that follow {COUNT} jobs",
        theirs.tools["squeue"] / max(1, ours.tools["squeue"] + ours.tools["sacct"]),
        against=against,
        floor=50,
        ambition=100,
        note=f"{ours.tools['squeue']} squeue in {ours.all:.0f} s",
    )
    scoreboard.score(
        f"processor time of {COUNT} jobs",
        theirs.cpu / ours.cpu,
        against=against,
        floor=1.5,
        ambition=5,
        note=f"{ours.cpu:.1f} s",
    )


def test_questions(cluster: SlurmCluster, tmp_path: Path, scoreboard: Scoreboard) -> None:
    """What jobs that wait or run cost slurmctld, once they are all there."""
    interval = 2.0 if IS_QUICK else INTERVAL
    path, notes = counted(tmp_path)
    description = tmp_path / "job.rsl"
    description.write_text(JOB.format("/bin/true"))
    environment = {**cluster.environment, "PATH": path, "HOME": str(tmp_path)}
    cluster.run("scontrol", "update", "PartitionName=short", "State=DOWN")
    command = [str(BIN / "gw_em_mad_slurm"), "--interval", f"{interval:g}"]
    with Player(command, environment, tmp_path) as player:
        player.initialise()
        player.send(
            b"".join(b"SUBMIT %d host %s\n" % (n, bytes(description)) for n in range(COUNT))
        )
        player.collect(b"SUBMIT ", COUNT)
        time.sleep(2 * interval)  # those that follow a submission at once are over
        before = Counter(notes.read_text().split())
        player.stream(b"".join(b"POLL %d - -\n" % n for n in range(COUNT)), COUNT)
        time.sleep(MINUTE * interval)
        asked = (Counter(notes.read_text().split()) - before).total()
        player.send(b"".join(b"CANCEL %d - -\n" % n for n in range(COUNT)))
        player.collect(b"DONE:143", COUNT)
    cluster.run("scontrol", "update", "PartitionName=short", "State=UP")
    scoreboard.score(
        f"questions for {COUNT} jobs on Slurm, a minute",
        QUESTIONS / max(1, asked),
        against=f"{QUESTIONS} of them",
        floor=1,
        ambition=QUESTIONS / MINUTE,
        note=f"{asked} in {MINUTE * interval:g} s",
    )


@pytest.mark.parametrize("state", ["", "/proc/self/cwd/state"], ids=["status files", "none"])
def test_the_end_of_a_job_is_told(
    cluster: SlurmCluster, tmp_path: Path, scoreboard: Scoreboard, state: str
) -> None:
    """Within the interval, and sooner where the job leaves a file."""
    interval = 2.0 if IS_QUICK else 5.0
    ended = tmp_path / "ended"
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nsleep {2 * interval:g}; date +%s.%N >{ended}\n")
    script.chmod(0o755)
    description = tmp_path / "job.rsl"
    description.write_text(JOB.format(script))
    command = [str(BIN / "gw_em_mad_slurm"), "--interval", f"{interval:g}"]
    command += ["--state", state] if state else []
    environment = {**cluster.environment, "HOME": str(tmp_path)}
    with Player(command, environment, tmp_path) as player:
        player.initialise()
        player.send(f"SUBMIT 1 host {description}\n".encode())
        assert re.search(rb"DONE:0", player.collect(b"DONE:0", 1))
        latency = time.time() - float(ended.read_text())
    scoreboard.score(
        f"a job's end is told ({'by Slurm' if state else 'by its file'})",
        interval / latency,
        against="the interval of questions",
        floor=0.5,
        ambition=0.9 if state else 2,
        note=f"{latency:.2f} s at {interval:g} s",
    )
