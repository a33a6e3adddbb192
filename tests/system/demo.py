"""`make demo`: jobs through a real GridWay and gridmad's local drivers, one of them watched.

    gwd -> gw_im_mad_local   knows this machine
        -> gw_tm_mad_local   brings each task's files to it, and its output back
        -> gw_em_mad_fork    runs the tasks, each so that it can be watched (--peek)
                -> msgpeek wrap -> a private STOMP broker -> msgpeek

Everything lives in a temporary folder that is removed at the end, and in a network of its own
where that is allowed: the program starts itself again in there, with what it is to say of it.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

from tests.services.gwd import GridWay, GridWayError, Host, Intervals, Job, Mad
from tests.services.network import PrivateNetwork
from tests.system.watched_job import WatchedJob, make_broker

TASKS = 20
SLOTS = 10
TIME = 60.0
"""Seconds that the array may take."""

PRIMES = """\
#!/bin/sh
# Counts the primes below the limit that this task's own input file holds.
read limit < limit.$1
awk -v task="$1" -v tasks="$GW_TOTAL_TASKS" -v host="$(uname -n)" -v limit="$limit" 'BEGIN {
    for (n = 2; n < limit; n++) {
        for (d = 2; d * d <= n && n % d; d++);
        if (d * d > n) primes++
    }
    printf "task %d of %d on %s: %d primes below %d\\n", task, tasks, host, primes, limit
}'
"""


def main() -> int:
    """Run it all in a private network; the exit code."""
    signal.signal(signal.SIGTERM, _interrupted)
    with PrivateNetwork() as network:
        program = [sys.executable, "-B", "-m", "tests.system.demo", network.problem]
        demo = subprocess.Popen([*network.prefix, *program])
        try:
            return demo.wait()
        except KeyboardInterrupt:
            demo.send_signal(signal.SIGTERM)
            return demo.wait()


def run_here(network_problem: str) -> int:
    """Run it in the network this process has; the exit code."""
    signal.signal(signal.SIGTERM, _interrupted)
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="gridmad-demo-") as folder:
            problems = _run(Path(folder), network_problem)
    except (GridWayError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["interrupted"]
    if problems:
        print("\nThe demo failed:", *problems, sep="\n  ", file=sys.stderr)
        return 1
    print(f"\nAll {TASKS} tasks ended with exit code 0, and each brought the right output back.")
    print(f"GridWay and its drivers are shut down; {time.monotonic() - start:.0f} s in all.")
    return 0


def _run(folder: Path, network_problem: str) -> list[str]:
    with contextlib.ExitStack() as stack:
        _title("Broker")
        broker = make_broker()
        if broker is None:
            print(
                "No STOMP broker is installed here (rabbitmq-server or activemq), and none could\n"
                "be: the demo goes on, but no job is watched live."
            )
        else:
            print(f"A private {broker.name} starts, to watch a job through ...", flush=True)
            stack.enter_context(broker)
        watched = WatchedJob(folder / "watched", broker) if broker is not None else None
        network = PrivateNetwork()
        gridway = stack.enter_context(
            GridWay(
                folder,
                information=[Mad("im", "gw_im_mad_local", f"--slots {SLOTS}")],
                execution=[Mad("em", "gw_em_mad_fork", watched.arguments if watched else "")],
                transfer=[Mad("tm", "gw_tm_mad_local")],
                intervals=Intervals(scheduling=1, discovery=5, monitoring=5, poll=10),
                network=network,
            )
        )
        _title("GridWay")
        print("gwd runs with gw_im_mad_local, gw_em_mad_fork and gw_tm_mad_local.")
        if network_problem:
            print(
                "CAUTION: gwd listens on all interfaces without authentication while this "
                f"runs;\nit could have no network of its own ({network_problem})."
            )
        else:
            print("It has a network of its own: nothing outside can reach it.")
        print("It looks for hosts every few seconds ...", flush=True)
        _show_host(gridway.wait_for_host())
        return _run_jobs(gridway, folder / "array", watched)


def _run_jobs(gridway: GridWay, folder: Path, watched: WatchedJob | None) -> list[str]:
    folder.mkdir()
    (folder / "primes.sh").write_text(PRIMES)
    limits = [1000 * (task + 1) for task in range(TASKS)]
    for task, limit in enumerate(limits):
        (folder / f"limit.{task}").write_text(f"{limit}\n")
    template = {
        "EXECUTABLE": "primes.sh",
        "ARGUMENTS": "${TASK_ID}",
        "INPUT_FILES": "limit.${TASK_ID}",
        "STDOUT_FILE": "output.${TASK_ID}",
        "STDERR_FILE": "errors.${TASK_ID}",
    }
    _title(f"Array of {TASKS} tasks")
    for name, value in template.items():
        print(f"  {name} = {value}")
    with watched or contextlib.nullcontext():
        start = time.monotonic()
        watched_jobs = gridway.submit(watched.folder, watched.template, 1) if watched else []
        if watched is not None:
            _title("... and one more job, watched while all of them run")
            watched.watch(watched_jobs[0])
        jobs = gridway.submit(folder, template, TASKS)
        ended = gridway.wait(watched_jobs + jobs, TIME, _Progress())
        elapsed = time.monotonic() - start
        problems = _problems_of_watched(gridway, watched, watched_jobs, ended)

    _title(f"Jobs (submitted, run and brought back in {elapsed:.1f} s)")
    outputs = [_read(folder / f"output.{task}") for task in range(TASKS)]
    _show_jobs(jobs, ended, outputs)
    return problems + _problems(gridway, folder, jobs, ended, outputs, limits)


def _problems_of_watched(
    gridway: GridWay, watched: WatchedJob | None, jobs: list[int], ended: Mapping[int, Job]
) -> list[str]:
    if watched is None:
        return []
    problems = watched.problems()
    code = ended[jobs[0]].exit_code
    if code != 0:
        problems.append(f"job {jobs[0]}: exit code {code}")
    if problems:
        return [*problems, _read(watched.folder / "errors"), gridway.job_log(jobs[0])]
    print("\n  What was seen live is, byte for byte, the output that came back with the job.")
    return []


class _Progress:
    """Tells whenever the picture changes."""

    WORDS: ClassVar[Mapping[str, str]] = {"pend": "waiting", "done": "done", "fail": "failed"}

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, jobs: list[Job]) -> None:
        """Show how the jobs stand."""
        counts = Counter(self.WORDS.get(job.state, "under way") for job in jobs)
        picture = ", ".join(f"{counts[word]} {word}" for word in sorted(counts, reverse=True))
        if picture != self._shown:
            self._shown = picture
            print(f"  {picture}", flush=True)


def _problems(
    gridway: GridWay,
    folder: Path,
    jobs: list[int],
    ended: Mapping[int, Job],
    outputs: list[str],
    limits: list[int],
) -> list[str]:
    problems = []
    for task, (job, output, limit) in enumerate(zip(jobs, outputs, limits, strict=True)):
        expected = f": {_primes(limit)} primes below {limit}"
        if ended[job].exit_code != 0:
            problems.append(f"job {job}: exit code {ended[job].exit_code}")
        elif not (output.startswith(f"task {task} of {TASKS} on ") and output.endswith(expected)):
            problems.append(f"job {job}: wrong output {output!r} instead of '... {expected}'")
        else:
            continue
        problems.append(_read(folder / f"errors.{task}") or "(nothing on stderr)")
        problems.append(gridway.job_log(job))
    return problems


def _show_host(host: Host) -> None:
    _title("Host")
    fields = host.fields
    queue = host.queues[0]
    rows = {
        "name": host.name,
        "system": f"{fields['OS_NAME']} {fields['OS_VERSION']}, {fields['ARCH']}",
        "load": f"{fields['CPU_FREE']} % of its CPUs free (100 % each), {fields['CPU_MHZ']} MHz",
        "memory": f"{fields['FREE_MEM_MB']} of {fields['SIZE_MEM_MB']} MB free",
        "disk": f"{fields['FREE_DISK_MB']} of {fields['SIZE_DISK_MB']} MB free",
        "jobs go to": f"{fields['LRMS_NAME']}, queue {queue['QUEUE_NAME']} "
        f"with {queue['QUEUE_NODECOUNT']} slots",
    }
    for name, value in rows.items():
        print(f"  {name:<12}{value}")


def _show_jobs(jobs: list[int], ended: Mapping[int, Job], outputs: list[str]) -> None:
    print("  job  task  state  exit  output")
    for task, (number, output) in enumerate(zip(jobs, outputs, strict=True)):
        job = ended[number]
        exit_code = "-" if job.exit_code is None else job.exit_code
        print(f"  {number:>3}  {task:>4}  {job.state:<5}  {exit_code:>4}  {output}")


def _title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _primes(limit: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_here(sys.argv[1]) if len(sys.argv) > 1 else main())
