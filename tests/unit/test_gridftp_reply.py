"""What GridFTP servers say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import CredentialError, DriverError, TransientError
from gridmad.transfer.gridftp_reply import (
    LONGEST,
    ExistsError,
    MissingError,
    ReplyError,
    error_of,
    parse_entry,
    reply_code,
    summary,
)
from gridmad.transfer.storage import Status

HEAD = "globus_ftp_client: the server responded with an error\n"
MISSING = (
    HEAD + "550 550-GlobusError: v=1 c=PATH_NOT_FOUND\n550-GridFTP-Errno: 2\n"
    "550-GridFTP-Reason: System error in stat\n"
    "550-GridFTP-Error-String: No such file or directory\n550 End.\n\n"
)
NO_FOLDER = (
    HEAD + "500 500-Command failed. : globus_l_gfs_file_open failed.\n"
    "500-globus_xio: Unable to open file /home/none/x\n"
    "500-globus_xio: System error in open: No such file or directory\n"
    "500-globus_xio: A system call failed: No such file or directory\n500 End.\n"
)
FULL = (
    HEAD + "500 500-Command failed. : callback failed.\n"
    "500-globus_xio: System error in write: No space left on device\n500 End.\n"
)
BROKEN = (
    HEAD + "500 500-Command failed. : callback failed.\n500-an end-of-file was reached\n"
    "500-globus_xio: An end of file occurred\n500 End.\n"
)
NO_ACCOUNT = (
    HEAD + "530 530-Login incorrect. : globus_gss_assist: Error invoking callout\n"
    "530-globus_callout_module: The callout returned an error\n530 End.\n"
)
REFUSED = (
    "globus_xio: Unable to connect to localhost:1\n"
    "globus_xio: System error in connect: Connection refused\n"
    "globus_xio: A system call failed: Connection refused\n"
)


@pytest.mark.parametrize(
    ("text", "kind", "line", "code"),
    [
        (MISSING, MissingError, "No such file or directory", 550),
        (NO_FOLDER, MissingError, "No such file or directory", 500),
        (FULL, ReplyError, "No space left on device", 500),
        (NO_ACCOUNT, ReplyError, "Login incorrect. : globus_gss_assist: Error invoking", 530),
        (HEAD + "550 550-GridFTP-Error-String: Permission denied\n550 End.", ReplyError,
         "Permission denied", 550),
        (HEAD + "550 File exists", ExistsError, "File exists", 550),
        (HEAD + "501 Invalid command arguments.\n\n", ReplyError, "Invalid command", 501),
    ],
)  # fmt: skip
def test_errors_that_are_for_good(text: str, kind: type[ReplyError], line: str, code: int) -> None:
    error = error_of(text)
    assert type(error) is kind
    assert str(error).startswith(line)
    assert error.code == code


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        (BROKEN, "an end-of-file was reached; An end of file occurred", 500),
        (REFUSED, "Unable to connect to localhost:1; Connection refused", 0),
        (HEAD + "421 Idle Timeout: closing control connection.", "Idle Timeout: closing", 421),
        (HEAD + "426 Data connection broken", "Data connection broken", 426),
        ("globus_ftp_client: the operation was aborted\n", "the operation was aborted", 0),
    ],
)
def test_errors_that_may_be_over_in_a_moment(text: str, line: str, code: int) -> None:
    error = error_of(text)
    assert isinstance(error, TransientError)
    assert isinstance(error, ReplyError)
    assert str(error).startswith(line)
    assert error.code == code


def test_a_bad_credential() -> None:
    text = (
        "globus_credential: The proxy credential: /tmp/x with subject: /CN=x expired 5 minutes ago"
    )
    assert isinstance(error_of(text), CredentialError)


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    line = summary(text)
    assert line
    assert len(line) <= LONGEST + 3
    assert len(line.splitlines()) == 1
    assert isinstance(error_of(text), DriverError)
    assert 0 <= reply_code(text) < 1000


@pytest.mark.parametrize(
    ("line", "name", "status"),
    [
        (b"Type=file;Modify=20261125135813;Size=6;UNIX.mode=0644; ~/x", "~/x", Status(6)),
        (b"type=dir;size=4096; a b ", "a b ", Status(4096, True)),
        (b"Type=cdir;Size=4096; .", ".", Status(4096, True)),
        (b"Type=dir;Size=4096;UNIX.slink=/etc; link", "link", Status(4096, True, "/etc")),
        (b"Type=file;Size=0; \xff\r\n", "\udcff", Status(0)),
        (b"Type=OS.unix=slink:;Size=1; l", "l", Status(1, False, "")),
    ],
)
def test_facts(line: bytes, name: str, status: Status) -> None:
    entry = parse_entry(line)
    assert entry.name == name
    assert entry.status == status


@pytest.mark.parametrize("line", [b"", b"name", b"Type=file;Size=x; name", b"Size=-1; name"])
def test_facts_that_are_none(line: bytes) -> None:
    with pytest.raises(DriverError):
        parse_entry(line)


@given(st.binary())
def test_any_facts_are_read_or_refused(line: bytes) -> None:
    try:
        entry = parse_entry(line)
    except DriverError:
        return
    assert entry.status.size >= 0
