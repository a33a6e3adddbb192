"""What the ssh driver and a host say to each other; the helper in a shell of this machine."""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DriverError
from gridmad.execution.contact import new_tags
from gridmad.execution.description.model import JobDescription
from gridmad.execution.model import ACTIVE, PENDING, SUSPENDED, JobState
from gridmad.execution.payload import quote
from gridmad.execution.ssh_helper import (
    FOLDER,
    Answer,
    Helper,
    Said,
    event,
    home_directory,
    refusal,
    script,
    state,
)
from gridmad.ssh import Address

WAIT = 30.0
TRICKY = "it's '\n}\n\"`id`$(id)!\\\n"
TAG = "5f0c3a91d2e80007"
OTHER = "5f0c3a91d2e80008"


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("host", "", "host", 0),
        ("me@login1.example.org", "me", "login1.example.org", 0),
        ("me@host:2222", "me", "host", 2222),
        ("192.0.2.7:22", "", "192.0.2.7", 22),
        ("me@[2001:db8::7]:2222", "me", "2001:db8::7", 2222),
        ("[fe80::1%eth0]", "", "fe80::1%eth0", 0),
    ],
)
def test_addresses(text: str, user: str, host: str, port: int) -> None:
    assert Address.parse(text) == (user, host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "@host", "me@", "-oProxyCommand=x", "me@-host", "host:0", "host:65536", "host:x", "a b",
     "host:", "me@you@host", "2001:db8::7", "[host]", "h;id", "$(id)", "host\n", "host/../x"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(DriverError):
        Address.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except DriverError:
        return
    assert Address.parse(str(address)) == address


# ---------------------------------------------------------------- answers


def test_an_answer() -> None:
    output = (
        b"Welcome to login1!\n"
        b"5f0c3a91d2e80009 ended 0\n"
        b"gridmad begin\n"
        b"5f0c3a91d2e80007 ended the directory /x y cannot be entered\n"
        b"a line of nobody\n"
        b"5f0c3a91d2e80008 running\n"
        b"gridmad end\n"
    )
    assert Answer.parse(output) == Answer(
        {TAG: Said("ended", "the directory /x y cannot be entered"), OTHER: Said("running", "")},
        True,
        True,
    )


@pytest.mark.parametrize("output", [b"", b"sh: 1: not found\n", b"gridmad end\n", b"gridmad begi"])
def test_an_answer_that_never_began(output: bytes) -> None:
    assert Answer.parse(output) == Answer({}, False, False)


@given(st.lists(st.sampled_from([b"gridmad begin\n", b"gridmad end\n", b"\n", b"\xff\0 ",
                                 TAG.encode(), b" ended ", b" running", b"143"])))  # fmt: skip
def test_any_output_is_read(parts: list[bytes]) -> None:
    answer = Answer.parse(b"".join(parts))
    assert set(answer.jobs) <= {TAG}
    assert answer.has_begun or not answer.is_whole
    for line in b"".join(parts).split(b"\n"):
        event(line)


@given(st.integers(0, 400))
def test_a_part_of_an_answer_is_not_whole(length: int) -> None:
    whole = b"gridmad begin\n" + b"".join(b"%016x running\n" % n for n in range(10))
    answer = Answer.parse(whole[:length])
    assert not answer.is_whole
    assert all(said == Said("running", "") for said in list(answer.jobs.values())[:-1])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"5f0c3a91d2e80007 starting", PENDING),
        (b"5f0c3a91d2e80007 running", ACTIVE),
        (b"5f0c3a91d2e80007 stopped", SUSPENDED),
        (b"5f0c3a91d2e80007 elsewhere login2", ACTIVE),
        (b"5f0c3a91d2e80007 ended 0", JobState.done(0)),
        (b"5f0c3a91d2e80007 ended 143", JobState.done(143)),
        (b"5f0c3a91d2e80007 ended 256", JobState.failed("256")),
        (b"5f0c3a91d2e80007 ended -1", JobState.failed("-1")),
        (b"5f0c3a91d2e80007 ended", JobState.failed("the job left an empty status file")),
        (b"5f0c3a91d2e80007 ended no \xe4 text", JobState.failed("no \ufffd text")),
    ],
)
def test_states(line: bytes, told: JobState) -> None:
    assert event(line) == (TAG, told)


@pytest.mark.parametrize(
    "line", [b"", b"5f0c3a91d2e80007", b"5F0C3A91D2E80007 running", b"5f0c3a91d2e80007 begun",
             b"../../../etc/pass running", b"5f0c3a91d2e800071 running"]
)  # fmt: skip
def test_what_is_no_event(line: bytes) -> None:
    assert event(line) is None


def test_what_was_not_said_is_no_success() -> None:
    assert refusal(Said("started", "")) is None
    assert "login2" in str(refusal(Said("elsewhere", "login2")))
    for said in (None, *(Said(w, "") for w in ("unwritable", "unstarted", "forbidden", "new"))):
        assert isinstance(refusal(said), DriverError)


def test_the_home_directory() -> None:
    assert home_directory(b"Hello\ngridmad home /home/me\n") == "/home/me"
    for output in (b"", b"gridmad home \n", b"gridmad home relative\n"):
        with pytest.raises(DriverError, match="no home directory"):
            home_directory(output)
    with pytest.raises(DriverError, match="setsid"):
        home_directory(b"gridmad missing setsid -f (util-linux)\ngridmad home /home/me\n")


def test_jobs_that_cannot_be_written_as_a_script() -> None:
    for job in (
        JobDescription("/bin/true", job_type="multiple", count=2),
        JobDescription("/bin/echo", ["a\0b"]),
        JobDescription("/bin/true", environment={"A B": "1"}),
        JobDescription("gsiftp://elsewhere/bin/true"),
    ):
        with pytest.raises(DriverError):
            script(job, TAG, "/home/me")


# ---------------------------------------------------------------- the helper


class Here:
    """The helper in this machine's shell, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / FOLDER
        self.helper = Helper()
        assert home_directory(self.shell(self.helper.greeting())) == str(home)

    def shell(self, text: bytes) -> bytes:
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        return subprocess.run(
            ["/bin/sh", "-s"], input=text, env=environment, capture_output=True, timeout=WAIT
        ).stdout

    def ask(self, *calls: Sequence[str]) -> dict[str, Said]:
        answer = Answer.parse(self.shell(self.helper.request(calls)))
        assert answer.is_whole
        return dict(answer.jobs)

    def start(self, tag: str, text: str) -> None:
        assert self.ask(("start", tag, text)) == {tag: Said("started", "")}

    def state(self, tag: str) -> JobState | None:
        said = self.ask(("query", tag))
        return state(said[tag]) if said else None

    def wait(self, tag: str, *phases: JobState) -> JobState:
        """Its final state, or the first of these."""
        end = time.monotonic() + WAIT
        while True:
            told = self.state(tag)
            if told is not None and (told.is_final or told in phases):
                return told
            assert time.monotonic() < end, told

    def wait_for(self, path: Path) -> str:
        """A file of one line."""
        end = time.monotonic() + WAIT
        while not path.exists() or not path.read_text().endswith("\n"):
            assert time.monotonic() < end, path
            time.sleep(0.01)
        return path.read_text()

    def shepherd(self, tag: str) -> int:
        return int(self.wait_for(self.folder / f"{tag}.run").split()[2])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    one = Here(tmp_path)
    yield one
    # Nothing of a job is left when its test is over.
    tags = [path.name for path in one.folder.glob("?" * 16)]
    left = one.shell(one.helper.request([("members", *tags)]))
    assert left == b"gridmad begin\ngridmad end\n"


def test_the_folder_is_its_users_alone(here: Here) -> None:
    here.start(TAG, "umask >$HOME/umask")
    assert here.wait(TAG) == JobState.done(0)
    assert (here.home / "umask").read_text() != "0077\n"
    for path in (here.home / ".gridmad", *(here.home / ".gridmad").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_request_that_was_cut_short_does_nothing(here: Here) -> None:
    text = f"echo x >>$HOME/trace; : {quote(TRICKY)}"
    request = here.helper.request([("start", TAG, text), ("start", OTHER, text)])
    body = request.rindex(b"gridmad end")
    chance = random.Random(7)
    lengths = {*chance.sample(range(body), 60), body - 1, body}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda length: here.shell(request[:length]), lengths))
    assert not (here.folder / TAG).exists()
    assert not (here.folder / OTHER).exists()
    here.shell(request)
    assert here.wait(TAG) == here.wait(OTHER) == JobState.done(0)
    assert (here.home / "trace").read_text() == "x\nx\n"


def test_a_tag_is_started_once(here: Here) -> None:
    request = here.helper.request([("start", TAG, "echo x >>$HOME/trace; sleep 0.2; exit 3")])
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(here.shell, [request] * 16))
    assert all(Answer.parse(output).jobs == {TAG: Said("started", "")} for output in outputs)
    assert here.wait(TAG) == JobState.done(3)
    assert (here.home / "trace").read_text() == "x\n"


def test_a_job_that_was_looked_for_is_found_or_never_started(here: Here) -> None:
    """However start and search meet."""
    tags = new_tags(100)
    start = here.helper.request([("start", tag, f"echo >$HOME/{tag}") for tag in tags])
    find = here.helper.request([("find_jobs", *reversed(tags))])
    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(here.shell, start)
        found = set(Answer.parse(pool.submit(here.shell, find).result()).jobs)
        started = Answer.parse(starting.result()).jobs
    assert set(started) == set(tags)
    assert {tag for tag in tags if started[tag].word == "started"} == found
    for tag in found:
        assert here.wait(tag) == JobState.done(0)
    assert {path.name for path in here.home.glob("?" * 16)} == found
    assert set(here.ask(("find_jobs", *tags))) == found


def test_a_start_that_comes_while_its_tag_is_given_up(here: Here) -> None:
    (here.folder / TAG).touch()

    def give_up() -> None:
        time.sleep(0.2)
        (here.folder / f"{TAG}.status").write_text("143\n")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(give_up)
        assert here.ask(("start", TAG, "true")) == {TAG: Said("forbidden", "")}
    assert here.ask(("find_jobs", TAG)) == {}


def test_a_start_that_was_cut_short_is_lost_after_a_while(here: Here) -> None:
    (here.folder / TAG).write_text("echo x >$HOME/trace")
    assert here.state(TAG) == PENDING
    os.utime(here.folder / TAG, (1, 1))
    lost = here.state(TAG)
    assert lost is not None
    assert lost.is_final
    assert "never begun" in lost.reason
    assert here.state(TAG) == lost
    # What comes now is too late.
    subprocess.run(
        ["/bin/sh", *map(str, here.folder.parent.glob("helper-*")), "shepherd", TAG, "022"],
        cwd=here.folder, env={"HOME": str(here.home), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert not (here.home / "trace").exists()


def test_exit_codes_and_signals(here: Here) -> None:
    for tag, (text, code) in zip(
        new_tags(5),
        [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137),
         ("kill -INT $$", 130)],
        strict=True,
    ):  # fmt: skip
        here.start(tag, text)
        assert here.wait(tag) == JobState.done(code)
        assert f"{tag} running\n{tag} ended {code}\n" in (here.folder / "events").read_text()


def test_what_a_job_gets(here: Here) -> None:
    here.start(TAG, "env >$HOME/env; grep ^Sig /proc/self/status >$HOME/signals; exec sleep 0")
    assert here.wait(TAG) == JobState.done(0)
    environment = (here.home / "env").read_text().splitlines()
    assert f"GRIDMAD_JOB={TAG}" in environment
    assert not [line for line in environment if line.startswith("SSH_")]
    signals = dict(line.split(":\t") for line in (here.home / "signals").read_text().splitlines())
    assert int(signals["SigIgn"], 16) & 0x7FFFFFFF == 0
    assert int(signals["SigBlk"], 16) == 0


def test_a_stopped_job(here: Here) -> None:
    here.start(TAG, "sleep 300 & echo $! >$HOME/pid; wait")
    here.wait_for(here.home / "pid")
    assert here.wait(TAG, ACTIVE) == ACTIVE
    shell = Path(f"/proc/{here.shepherd(TAG)}/task/{here.shepherd(TAG)}/children").read_text()
    os.kill(int(shell), 19)
    assert here.wait(TAG, SUSPENDED) == SUSPENDED
    # It must go on to take the signal.
    here.ask(("cancel", "5", TAG))
    assert here.wait(TAG) == JobState.done(143)


def test_a_cancelled_job_ends_with_all_that_it_began(here: Here) -> None:
    here.start(
        TAG,
        "trap '' TERM; setsid sleep 301 & env -i sleep 302 & "
        "env -i sh -c 'trap \"\" TERM; sleep 303' & echo >$HOME/ready; wait; sleep 304",
    )
    here.wait_for(here.home / "ready")
    here.ask(("cancel", "1", TAG))
    here.ask(("cancel", "1", TAG))
    told = here.wait(TAG)
    assert told == JobState.done(143)
    assert here.ask(("members", TAG)) == {}


def test_a_term_is_sent_once_and_in_time_to_clean_up(here: Here) -> None:
    here.start(
        TAG,
        "trap 'echo x >>$HOME/trace' TERM; echo >$HOME/ready; for n in 1 2 3; do sleep 0.3; done",
    )
    here.wait_for(here.home / "ready")
    here.ask(("cancel", "20", TAG))
    assert here.wait(TAG) == JobState.done(143)
    assert (here.home / "trace").read_text() == "x\n"


def test_a_job_that_is_cancelled_as_it_begins(here: Here) -> None:
    tags = new_tags(20)
    calls = [call for tag in tags for call in (("start", tag, "sleep 300"), ("cancel", "1", tag))]
    here.ask(*calls)
    assert {here.wait(tag) for tag in tags} == {JobState.done(143)}


def test_to_cancel_what_is_unknown_or_has_ended_is_no_error(here: Here) -> None:
    here.start(TAG, "exit 4")
    assert here.wait(TAG) == JobState.done(4)
    assert here.ask(("cancel", "1", TAG, OTHER)) == {}
    assert here.state(TAG) == JobState.done(4)
    assert here.state(OTHER) is None


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_job_that_lost_its_shepherd(here: Here, is_cancelled: bool) -> None:
    here.start(TAG, "trap '' TERM; setsid sleep 305 & echo >$HOME/ready; sleep 306; sleep 307")
    here.wait_for(here.home / "ready")
    if is_cancelled:
        here.ask(("cancel", "60", TAG))
        finisher = int(here.wait_for(here.folder / f"{TAG}.cancel").split()[2])
        os.kill(finisher, 9)
    os.kill(here.shepherd(TAG), 9)
    told = here.wait(TAG)
    if is_cancelled:
        assert told == JobState.done(143)
    else:
        assert "vanished" in told.reason
    assert here.ask(("members", TAG)) == {}


def test_another_boot_and_another_host(here: Here) -> None:
    node = Path("/proc/sys/kernel/hostname").read_text().strip()
    for tag, name in ((TAG, node), (OTHER, "login2")):
        (here.folder / tag).write_text("sleep 1")
        (here.folder / f"{tag}.run").write_text(f"{name} 0-0-0 1 1\n")
    assert here.ask(("query", OTHER)) == {OTHER: Said("elsewhere", "login2")}
    assert here.ask(("cancel", "1", OTHER)) == {OTHER: Said("elsewhere", "login2")}
    told = here.state(TAG)
    assert told is not None
    assert "started anew" in told.reason


def test_garbage_in_a_jobs_files(here: Here) -> None:
    for number, text in enumerate([b"", b"\xff\xfe\n", b"a b c d\n", b"$(touch x) `id` ;\n"]):
        tag = f"{number:016x}"
        (here.folder / tag).write_text("sleep 1")
        (here.folder / f"{tag}.run").write_bytes(text)
        os.utime(here.folder / tag, (1, 1))
        assert here.state(tag) is not None
    assert not (here.folder / "x").exists()


def test_old_files_are_removed_once_a_day(here: Here) -> None:
    here.start(TAG, "sleep 308")
    old = [here.folder / f"{OTHER}{end}" for end in ("", ".run", ".status", ".status.stdout")]
    for path in old:
        path.write_text("0\n")
        os.utime(path, (1, 1))
    for end in ("", ".run"):
        here.wait_for(here.folder / f"{TAG}.run")
        os.utime(here.folder / f"{TAG}{end}", (1, 1))
    here.ask(("keep", "7"))
    until = time.monotonic() + WAIT
    while any(path.exists() for path in old):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert here.state(TAG) == ACTIVE
    old[2].write_text("0\n")
    os.utime(old[2], (1, 1))
    here.ask(("keep", "7"))
    here.ask(("cancel", "1", TAG))
    assert here.wait(TAG) == JobState.done(143)
    assert old[2].exists()


def test_a_tool_that_would_submit_is_ended(here: Here) -> None:
    name = f"gridmad-{os.urandom(6).hex()}"
    words = ["/bin/sh", "-c", "read line", f"--job-name={name}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as tool:
        here.ask(("end_tools", f"{name}x", name[:-1]))
        assert tool.poll() is None
        here.ask(("end_tools", name))
        assert tool.wait(WAIT) == -9
