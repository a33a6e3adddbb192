"""Every driver against what gwd relies on.  See README.md for how a new one goes through."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.drivers import Site
from tests.conformance.gwd import Player, number, pieces, scan

information = pytest.mark.family("information")
execution = pytest.mark.family("execution")
transfer = pytest.mark.family("transfer")

# What str.split, int or a line reader may take for a blank, a number or an end.
GARBAGE = [
    b"FOO", b"-", b"\x00", b"\x0b", b"\xff\xfe", b"MONITOR", b"POLL", b"CP", b"SUBMIT x",
    b"MONITOR +3 host -", b"POLL +3 - -", b"POLL 1_0 - -", b"POLL 3\x0b- -", b"CANCEL 3\x1c- -",
    b"POLL \xd9\xa3 - -", b"POLL 3\xc2\xa0- -", b"POLL\x00 3 - -", b"CP 1 +2 - a b",
    b"CP 1 \xd9\xa3 - a b", b"CP 1 2\x0c- a b", b"START 1\x852 - - - - ", b"SUBMIT 1\rPOLL 2",
    b"RECOVER 3 - -", b"MKDIR 5 - - - - ", b"CALLBACK 3 SUCCESS DONE", b"TIMER - SUCCESS x",
    b"MONITOR 123456789012 host -", b"POLL 123456789012 - -", b"CP 1 123456789012 - a b",
    b"x" * 1000, b"MONITOR 3 " + b"h" * 65_536, b"y" * 200_000, b"POLL " + b"9" * 65_535,
    b" " * 70_000 + b"POLL 3 - -",
]  # fmt: skip
BLANK = [b"", b" ", b"\t \t", b"\r"]


def good(site: Site) -> list[str]:
    """A few requests that every driver of the family can answer."""
    if site.subject.family == "information":
        return ["DISCOVER - - -", "MONITOR 3 nowhere.invalid -", "MONITOR 99999 nowhere.invalid -"]
    if site.subject.family == "execution":
        return ["POLL 4711 - -", "CANCEL 4712 - -", "POLL 99999 - -"]
    url, _ = site.job_folder(7)
    return [
        "START 7 - - - - ",
        f"RMDIR 7 - - {url} - ",
        f"MKDIR 7 - - {url} - ",
        f"CP 7 3 - file:///etc/hostname {url}/h",
        "END 7 - - - - ",
    ]


def storm(site: Site, gwd: Player, count: int) -> list[str]:
    """That many requests, of few kinds."""
    if site.subject.family == "information":
        hosts = ["nowhere.invalid"]
        if site.subject.has_hosts:
            (line,) = gwd.ask_and_wait("DISCOVER - - -")
            hosts = line.split()[3:] or hosts
        return [f"MONITOR {i} {hosts[i % len(hosts)]} -" for i in range(count)]
    if site.subject.family == "execution":
        return [f"POLL {i} - -" for i in range(count)]
    url, _ = site.job_folder(9)
    source = site.write("small", "a small file\n")
    head = ["START 9 - - - - ", f"RMDIR 9 - - {url} - ", f"MKDIR 9 - - {url}/ - "]
    copies = [f"CP 9 {i} - file://{source} {url}/f{i}" for i in range(count - 4)]
    return [*head, *copies, "END 9 - - - - "]


# ---------------------------------------------------------------- start and end


def test_init_is_the_first_line_and_the_end_comes_within_a_second(site: Site) -> None:
    with site.play(byte_by_byte=True) as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*good(site))
        gwd.finalise()
        assert gwd.leftovers() == []


def test_end_of_file_is_finalize(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*good(site))
        gwd.close_stdin()
        gwd.wait_for_end()
        assert gwd.leftovers() == []


def test_end_of_file_before_init_and_in_mid_line(site: Site) -> None:
    for text in b"", b"INI":
        with site.play() as gwd:
            gwd.write(text)
            gwd.is_initialised = True
            gwd.tolerated = 1
            gwd.close_stdin()
            gwd.wait_for_end()
    with site.play() as gwd:
        gwd.initialise()
        gwd.tolerated = 1
        gwd.write(b"START 1 - -")
        gwd.close_stdin()
        gwd.wait_for_end()


def test_a_reader_that_is_gone_ends_the_driver(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.close_stdout()
        gwd.write((good(site)[0] + "\n").encode())
        gwd.wait_for_end()
        assert gwd.leftovers() == []


def test_finalize_comes_while_all_is_under_way(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask(*storm(site, gwd, 500))
        gwd.finalise(linger=0)
        assert gwd.leftovers() == []


@pytest.mark.parametrize("form", ["one word", "words", "blanks", "nothing"])
def test_arguments(site: Site, form: str) -> None:
    words = {
        "one word": [site.arguments],
        "words": site.arguments.split(),
        "blanks": [f"  {site.arguments} \t "],
        "nothing": [""],
    }[form]
    with site.play(*words, is_plain=False) as gwd:
        if form == "nothing" and site.subject.needs_arguments:
            assert gwd.process.wait(5) == 2
            assert gwd.answers == []
            return
        gwd.initialise()
        gwd.finalise()


def test_a_wrong_argument_ends_it_before_it_says_anything(site: Site) -> None:
    with site.play(f"{site.arguments} --no-such-option", is_plain=False) as gwd:
        gwd.write(b"INIT 200 - - - -\n")
        assert gwd.process.wait(5) != 0
        assert gwd.answers == []


def test_gwrc_files_count_though_gw_location_is_missing(site: Site) -> None:
    site.write("etc/gwrc", 'export PRIORITY=3\nGRIDMAD_TEST_A="a b"\nGRIDMAD_TEST_B=1\n')
    site.write("etc/gridway/gwrc", "PRIORITY=7\n")
    never = site.folder / "never"
    site.home.joinpath(".gwrc").write_text(f"GRIDMAD_TEST_B=$(touch {never})\n# a comment\n")
    environment = {k: v for k, v in site.environment.items() if k != "GW_LOCATION"}
    with site.play(environment=environment) as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*good(site))
        assert os.getpriority(os.PRIO_PROCESS, gwd.process.pid) == 7
    assert not never.exists()


def test_more_jobs_than_gwd_can_count_are_no_reason_to_fail(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise(jobs=1_000_000)
        gwd.ask_and_wait(*good(site))


def test_nothing_of_gwd_is_handed_on(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait(*good(site))
        assert int(gwd.status()["SigBlk"], 16) == 0, "rule 2: signals are blocked"
        assert gwd.client_is_gone(), "rule 2: a client's socket is held open"
        gwd.process.send_signal(signal.SIGTERM)
        assert gwd.process.wait(3) in (0, 128 + signal.SIGTERM)
        assert gwd.leftovers() == []


# ---------------------------------------------------------------- lines


def test_garbage_between_good_lines(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        for line in GARBAGE:
            gwd.send_garbage(line)
            gwd.write(b"\n".join(BLANK) + b"\n")
            gwd.ask(good(site)[0])
        gwd.settle()
        gwd.ask_and_wait(*good(site))


def test_requests_in_every_form_that_gwd_writes(site: Site) -> None:
    forms: list[Callable[[str], str]] = [
        str.lower, "{}   ".format, " {}".format, "{}\r".format,
        lambda request: request.replace(" ", "\t "),
    ]  # fmt: skip
    with site.play() as gwd:
        gwd.initialise()
        for form in forms:
            for request in good(site):
                gwd.ask_and_wait(form(request))


def test_requests_byte_by_byte(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        for request in good(site):
            gwd.open[gwd._key(request)] += 1
            for byte in pieces(f"{request}\n".encode(), 1):
                gwd.write(byte)
        gwd.settle()


def test_every_one_of_many_equal_requests_is_answered(site: Site) -> None:
    request = good(site)[0]
    with site.play() as gwd:
        gwd.initialise()
        assert len(gwd.ask_and_wait(*[request] * 500)) == 500


# ---------------------------------------------------------------- load


def test_a_storm(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        count = 10_000
        requests = storm(site, gwd, count)
        gwd.ask(*requests)
        gwd.settle(60)
        assert gwd.process.poll() is None


def test_a_reader_that_stops_for_a_while(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        requests = storm(site, gwd, 3_000)
        gwd.pause_reading()
        gwd.ask(*requests)
        time.sleep(0.3)
        gwd.go_on_reading()
        gwd.settle()


@pytest.mark.parametrize("seed", range(4))
def test_pipes_that_close_at_any_moment(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    with site.play() as gwd:
        gwd.initialise()
        text = "".join(f"{line}\n" for line in storm(site, gwd, 2_000)).encode()
        gwd.tolerated = 1 << 20
        sender = threading.Thread(target=_write_till_broken, args=(gwd, text))
        sender.start()
        time.sleep(chance.uniform(0, 0.05))
        if seed % 2:
            gwd.close_stdout()
            sender.join()
            # What had all been read by then tells the driver nothing: the next request does.
            _write_till_broken(gwd, f"{good(site)[0]}\n".encode())
        else:
            sender.join()
            gwd.close_stdin()
        gwd.wait_for_end()
        assert gwd.leftovers() == []


def _write_till_broken(gwd: Player, text: bytes) -> None:
    for piece in pieces(text, 4096):
        try:
            gwd.write(piece)
        except BrokenPipeError:
            return


# ---------------------------------------------------------------- information


@information
def test_hosts_and_their_attributes(site: Site) -> None:
    with site.play(byte_by_byte=True) as gwd:
        gwd.initialise()
        (discovered,) = gwd.ask_and_wait("DISCOVER - - -")
        if not site.subject.has_hosts:
            return
        hosts = discovered.split()[3:]
        assert hosts
        assert len(set(hosts)) == len(hosts)
        answers = gwd.ask_and_wait(*[f"MONITOR {i} {host} -" for i, host in enumerate(hosts)])
        for line in answers:
            _, host_id, result, info = scan(line, (20, 5, 10))
            assert result == "SUCCESS"
            assert f'HOSTNAME="{hosts[int(host_id)]}"' in info
            assert 'LRMS_NAME="' in info, "rule 16: without LRMS_NAME it gets no jobs"
            assert 'QUEUE_NAME[0]="' in info, "rule 16: without a queue it gets no jobs"


@information
def test_an_unknown_host_is_a_failure_under_its_own_id(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        (line,) = gwd.ask_and_wait("MONITOR 41 nowhere.invalid -")
        assert line.startswith("MONITOR 41 FAILURE ")


# ---------------------------------------------------------------- execution


def submit(site: Site, gwd: Player, job: int, description: Path) -> str:
    (line,) = gwd.ask_and_wait(f"SUBMIT {job} localhost/jobmanager-fork {description}")
    return line


@execution
@pytest.mark.parametrize("job", [0, 12345])
def test_a_job_runs_to_its_end(site: Site, job: int) -> None:
    with site.play(byte_by_byte=True) as gwd:
        gwd.initialise()
        assert " SUCCESS " in submit(site, gwd, job, site.script(str(job), "exit 7"))
        gwd.wait(lambda: gwd.has_ended(job), "the job's end is not told")
        assert gwd.told[job][-1] == "DONE:7"
        assert gwd.ask_and_wait(f"POLL {job} - -") == [f"POLL {job} SUCCESS DONE:7"]


@execution
def test_what_a_job_inherits(site: Site) -> None:
    seen = site.folder / "seen"
    description = site.script(
        "1", f"grep ^Sig /proc/self/status > {seen}; ls -l /proc/self/fd >> {seen}; echo >> {seen}"
    )
    with site.play() as gwd:
        gwd.initialise()
        submit(site, gwd, 1, description)
        gwd.wait(lambda: gwd.has_ended(1), "the job's end is not told")
        assert gwd.client_is_gone(), "rule 2: a client's socket reached the job"
    if not site.subject.hands_on:
        return
    text = seen.read_text()
    status = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Sig"))
    assert int(status["SigBlk"], 16) == 0, "rule 2: signals are blocked in the job"
    ignored = int(status["SigIgn"], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1), "rule 2: SIGPIPE is ignored in the job"
    assert "socket:" not in text
    links = [line.split(" -> ")[0].split()[-1] for line in text.splitlines() if " -> " in line]
    assert set(links) <= {"0", "1", "2", "3"}, text


@execution
def test_a_job_that_cannot_run_is_no_success(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        line = submit(site, gwd, 1, site.description("1", "/nonexistent/program"))
        if " SUCCESS " in line:
            gwd.wait(lambda: gwd.has_ended(1), "the job's end is not told")
            assert gwd.told[1][-1] in ("FAILED", "DONE:126", "DONE:127")
        assert " FAILURE " in submit(site, gwd, 2, site.location / "no-such.rsl")


@execution
def test_a_cancelled_job_ends_with_all_its_processes(site: Site) -> None:
    pids = site.folder / "pids"
    text = f"sleep 300 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    with site.play() as gwd:
        gwd.initialise()
        submit(site, gwd, 1, site.script("1", text))
        processes = _read_pids(pids)
        assert gwd.ask_and_wait("CANCEL 1 - -") == ["CANCEL 1 SUCCESS -"]
        gwd.wait(lambda: gwd.has_ended(1), "the cancelled job's end is not told")
        assert gwd.told[1][-1].startswith("DONE")
        if site.subject.ends_processes:
            assert not any(map(_is_alive, processes)), "rule 24: a process of the job is left"
        assert gwd.ask_and_wait("CANCEL 1 - -") == ["CANCEL 1 SUCCESS -"]


@execution
def test_a_job_outlives_its_driver_and_is_recovered(site: Site) -> None:
    gate, pids = site.folder / "gate", site.folder / "pids"
    os.mkfifo(gate)
    text = f"echo $$ > {pids}.new; mv {pids}.new {pids}; read line < {gate}; exit 5"
    with site.play() as first:
        first.initialise()
        submit(site, first, 1, site.script("1", text))
        processes = _read_pids(pids)
        contact = first.contacts[1].split()[0]
        first.finalise()
    assert all(map(_is_alive, processes)), "rule 5: the job did not outlive the driver"
    with site.play() as second:
        second.initialise()
        second.ask_and_wait(f"RECOVER 1 {contact} -", "POLL 1 - -")
        assert second.answers[-1].split()[-1] in ("PENDING", "ACTIVE")
        gate.write_text("go\n")
        second.wait(lambda: second.has_ended(1), "the recovered job's end is not told")
        assert second.told[1][-1] == "DONE:5"


@execution
def test_what_nobody_can_recover_is_answered(site: Site) -> None:
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait("RECOVER 3 nonsense -", "RECOVER 4 fork://elsewhere/x/1/2/3 -")
        gwd.ask_and_wait("POLL 3 - -", "CANCEL 4 - -")


@execution
def test_a_pre_wrapper_and_its_job_have_one_id_and_one_file(site: Site) -> None:
    trace = site.folder / "trace"
    with site.play() as gwd:
        gwd.initialise()
        submit(site, gwd, 1, site.script("1", f"echo first >> {trace}; exit 1"))
        # The file is written anew as soon as SUBMIT is answered.
        path = site.script("1x", f"echo second >> {trace}; exit 2")
        target = site.location / "var/1/job.rsl.0"
        target.write_text(path.read_text())
        gwd.wait(lambda: gwd.has_ended(1), "the pre-wrapper's end is not told")
        assert gwd.told[1][-1] == "DONE:1"
        submit(site, gwd, 1, target)
        gwd.wait(lambda: gwd.has_ended(1), "the job's end is not told")
        assert gwd.told[1][-1] == "DONE:2"
    assert trace.read_text() == "first\nsecond\n"


@execution
def test_hundreds_of_jobs_between_polls(site: Site) -> None:
    count = site.subject.jobs
    requests = []
    for job in range(count):
        description = site.description(str(job), "/bin/true")
        requests.append(f"SUBMIT {job} localhost/jobmanager-fork {description}")
        requests += [f"POLL {job} - -"] * 3
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask(*requests)
        gwd.settle(60)
        for job in range(count):
            problem = f"the end of job {job} is not told"
            gwd.wait(lambda job=job: gwd.has_ended(job), problem, 90)  # type: ignore[misc]
            assert gwd.last_state(job) == "DONE:0"


@execution
def test_pipes_that_close_while_jobs_are_submitted(site: Site) -> None:
    description = site.description("1", "/bin/sleep", "20")
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask(*[f"SUBMIT {job} localhost {description}" for job in range(40)])
        time.sleep(0.03)
        gwd.finalise(linger=0)


@execution
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(2))
def test_a_driver_that_dies_at_any_moment_loses_no_job_and_runs_none_twice(
    site: Site, seed: int
) -> None:
    lives, jobs_each = int(os.environ.get("GRIDMAD_LIVES", "6")), 5
    count = lives * jobs_each
    random_ = random.Random(seed)
    traces = site.folder / "traces"
    traces.mkdir()
    gwd = Gwd(site)
    for life in range(lives):
        for job in range(life * jobs_each, (life + 1) * jobs_each):
            nap = random_.choice((0, 0, 0.2, 1))
            text = f"echo x >> {traces}/{job}; sleep {nap}; exit {job % 5}"
            gwd.add(job, site.script(str(job), text))
        gwd.live(random_.choice((random_.uniform(0, 0.3), random_.uniform(0, 1.2))))
    gwd.live(None)
    assert gwd.ends == {job: f"DONE:{job % 5}" for job in range(count)}
    runs = {int(path.name): path.read_text().count("x") for path in traces.iterdir()}
    assert runs == dict.fromkeys(range(count), 1)


class Gwd:
    """What gwd does when its driver dies: it recovers the jobs whose contacts it has, and
    submits the others again.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._waiting: dict[int, Path] = {}
        self._contacts: dict[int, str] = {}
        self.ends: dict[int, str] = {}

    def add(self, job: int, description: Path) -> None:
        """One more job."""
        self._waiting[job] = description

    def live(self, seconds: float | None) -> None:
        """One life of the driver, which is killed after some time or ends with the last job."""
        gwd = self._site.play()
        try:
            gwd.initialise()
            gwd.ask(*(f"RECOVER {job} {contact} -" for job, contact in self._contacts.items()))
            resource = "localhost/jobmanager-fork"
            for job, description in self._waiting.items():
                gwd.ask(f"SUBMIT {job} {resource} {description}")
            jobs = {*self._contacts, *self._waiting}
            if seconds is None:
                # A job that is lost never ends; one that is not may wait for a busy machine.
                for job in jobs:
                    gwd.wait(lambda job=job: gwd.has_ended(job), f"job {job} does not end", 240)  # type: ignore[misc]
            else:
                time.sleep(seconds)
            gwd.process.kill()
            gwd.read_to_the_end()
        finally:
            gwd.kill()
        assert not gwd.breaches, gwd.breaches
        self._note(gwd)

    def _note(self, gwd: Player) -> None:
        for job, contact in gwd.contacts.items():
            if self._waiting.pop(job, None) is not None:
                self._contacts[job] = contact
        for job in [job for job in self._contacts if gwd.has_ended(job)]:
            # What went wrong says more than that something did.
            self.ends[job] = gwd.reasons.get(job, gwd.last_state(job))
            del self._contacts[job]


# ---------------------------------------------------------------- transfer


def phase(site: Site, job: int, copies: list[str]) -> list[str]:
    url, _ = site.job_folder(job)
    return [
        f"START {job} - - - - ",
        f"RMDIR {job} - - {url} - ",
        f"MKDIR {job} - - {url}/ - ",
        *copies,
        f"END {job} - - - - ",
    ]


@transfer
@pytest.mark.parametrize("job", [5, 11997])
def test_a_staging_phase(site: Site, job: int) -> None:
    url, folder = site.job_folder(job)
    source, program = site.write("in put", "data\n" * 1000), site.write("program", "#!/bin/sh\n")
    back = site.folder / "back"
    here = str(source).replace(" ", "%20")
    source.rename(here)
    copies = [
        f"CP {job} 0 - file://{here} {url}//input",
        f"CP {job} 3 X file://{program} {url}/program",
    ]
    with site.play(byte_by_byte=True) as gwd:
        gwd.initialise()
        answers = gwd.ask_and_wait(*phase(site, job, copies))
        assert all(" SUCCESS " in line for line in answers)
        assert [line.split()[0] for line in answers] == [
            "START", "RMDIR", "MKDIR", "CP", "CP", "END"
        ]  # fmt: skip
        tids = {line.split()[2] for line in answers if line.startswith("CP")}
        assert tids == ({"0", "3"} if job < 10_000 else {"+0", "+3"}), "rule 10"
        if site.subject.moves_files:
            assert (folder / "input").read_bytes() == Path(here).read_bytes()
            assert not site.subject.has_modes or os.access(folder / "program", os.X_OK)
            assert not (folder / "input").stat().st_mode & 0o111
        answers = gwd.ask_and_wait(
            f"START {job} - - - - ",
            f"CP {job} 0 - {url}/input file://{back}",
            f"RMDIR {job} - - {url} - ",
            f"END {job} - - - - ",
        )
        assert all(" SUCCESS " in line for line in answers)
        if site.subject.moves_files:
            assert back.read_bytes() == Path(here).read_bytes()
            assert not folder.exists()


@transfer
def test_copies_that_gwd_orders_twice_are_answered_once(site: Site) -> None:
    """As it does when it replaces a driver while a job comes to its epilog (rule 12)."""
    url, _ = site.job_folder(6)
    source = site.write("file", "x" * 1000)
    copies = [f"CP 6 {i} - file://{source} {url}/{i}" for i in range(3)]
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask_and_wait("START 6 - - - - ", "START 6 - - - - ", f"MKDIR 6 - - {url} - ")
        gwd.ask(*copies)
        gwd.write("".join(f"{copy}\n" for copy in copies).encode())
        answers = gwd.ask_and_wait(f"RMDIR 6 - - {url} - ", "END 6 - - - - ")
        assert [line.split()[0] for line in answers] == ["RMDIR", "END"]
        told = [line.split()[2] for line in gwd.answers if line.startswith("CP ")]
        assert sorted(told) == ["0", "1", "2"]


@transfer
def test_what_must_not_fail_does_not(site: Site) -> None:
    url, _ = site.job_folder(1)
    with site.play() as gwd:
        gwd.initialise()
        answers = gwd.ask_and_wait(
            "END 1 - - - - ",
            f"RMDIR 1 - - {url}/none - ",
            f"MKDIR 1 - - {url}/a/b/c - ",
            f"MKDIR 1 - - {url}/a/b/c - ",
            f"RMDIR 1 - - {url} - ",
            "START 1 - - - - ",
            "START 1 - - - - ",
            "END 1 - - - - ",
        )
        assert len(answers) == 8
        assert all(" SUCCESS " in line for line in answers)


@transfer
def test_a_copy_that_fails_says_so_and_the_others_succeed(site: Site) -> None:
    if not site.subject.moves_files:
        pytest.skip("it moves no files")
    url, folder = site.job_folder(2)
    source = site.write("file", "text")
    copies = [
        f"CP 2 0 - file://{site.folder}/no-such-file {url}/a",
        f"CP 2 1 - file://{source} {url}/b",
        f"CP 2 2 - file://{source} {url}/b",
        "CP 2 4 - nonsense nonsense",
        f"CP 2 5 - file://{source} {url}/no/such/directory/c",
    ]
    with site.play() as gwd:
        gwd.initialise()
        answers = {line.split()[2]: line for line in gwd.ask_and_wait(*phase(site, 2, copies))}
        assert " FAILURE " in answers["0"]
        assert " SUCCESS " in answers["1"]
        assert " SUCCESS " in answers["2"]
        assert " FAILURE " in answers["4"]
        assert " FAILURE " in answers["5"]
        assert (folder / "b").read_text() == "text"
        assert not (folder / "a").exists()
        (found,) = gwd.ask_and_wait(f"EXISTS 2 - - {url}/b - ")
        (missing,) = gwd.ask_and_wait(f"EXISTS 2 - - {url}/a - ")
        assert " SUCCESS " in found
        assert " FAILURE " in missing


@transfer
def test_copies_under_way_when_the_pipes_close_leave_nothing_half(site: Site) -> None:
    if not site.subject.moves_files:
        pytest.skip("it moves no files")
    url, folder = site.job_folder(3)
    size = 64 << 20
    source = site.location / "large"
    with source.open("wb") as file:
        file.write(os.urandom(1 << 20) * (size >> 20))
    copies = [f"CP 3 {i} - file://{source} {url}/f{i}" for i in range(8)]
    with site.play() as gwd:
        gwd.initialise()
        gwd.ask(*phase(site, 3, copies))
        gwd.wait(lambda: ("MKDIR", 3, -1) not in gwd.open, "MKDIR is not answered")
        time.sleep(0.02)
        gwd.finalise(linger=0)
        for path in folder.glob("f*"):
            assert path.stat().st_size == size, "rule 30: half a file under its final name"


@transfer
def test_jobs_do_not_wait_for_each_other(site: Site) -> None:
    source = site.write("file", "x" * 1000)
    requests = []
    for job in range(100):
        url, _ = site.job_folder(job)
        requests += phase(site, job, [f"CP {job} {i} - file://{source} {url}/f" for i in (0, 1, 9)])
    with site.play() as gwd:
        gwd.initialise()
        answers = gwd.ask_and_wait(*requests)
        assert len(answers) == len(requests)
        assert all(" SUCCESS " in line for line in answers)
        for job in range(100):
            mine = [line.split()[0] for line in answers if number(line.split()[1]) == job]
            assert mine == ["START", "RMDIR", "MKDIR", "CP", "CP", "CP", "END"]


def _read_pids(path: Path) -> list[str]:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.01)
    return path.read_text().split()


def _is_alive(pid: str) -> bool:
    try:
        return "\nState:\tZ" not in Path("/proc", pid, "status").read_text()
    except FileNotFoundError:
        return False
