"""What credentials' files say, and what is said of them."""

import base64
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.credential import (
    LAST_END,
    Agenda,
    CredentialSource,
    Kind,
    proxy_end,
    proxy_source,
    read_credential,
    slurm_source,
    token_end,
    token_source,
    validity,
)
from gridmad.errors import CredentialError
from tests import proxies

END = 1_795_608_000.0
"""2026-11-25T12:00:00Z."""


def jwt(claims: Any, header: Any = None) -> bytes:
    parts = [json.dumps(part).encode() for part in (header or {"alg": "RS256"}, claims)]
    encoded = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, b"signature")]
    return b".".join(encoded)


# ---------------------------------------------------------------- where they are


def test_where_a_proxy_is() -> None:
    assert proxy_source({}, 1000).paths == ("/tmp/x509up_u1000",)
    assert proxy_source({"X509_USER_PROXY": ""}, 0).paths == ("/tmp/x509up_u0",)
    assert proxy_source({"X509_USER_PROXY": "/a b"}, 0) == CredentialSource(Kind.PROXY, ("/a b",))


def test_where_a_token_is_in_the_order_of_discovery() -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert token_source({}, 7).paths == ("/tmp/bt_u7",)
    assert token_source(environment, 7).paths == ("/run/user/7/bt_u7", "/tmp/bt_u7")
    environment["BEARER_TOKEN_FILE"] = "/t"
    assert token_source(environment, 7).paths == ("/t",)
    environment["BEARER_TOKEN"] = " abc\n"
    assert token_source(environment, 7) == CredentialSource(Kind.TOKEN, (), "abc")
    environment["BEARER_TOKEN"] = " "
    assert token_source(environment, 7).paths == ("/t",)
    assert slurm_source({"SLURM_JWT": "abc"}).value == "abc"


def test_secrets_are_not_shown() -> None:
    token = jwt({"exp": END})
    source = token_source({"BEARER_TOKEN": token.decode()}, 7)
    for text in (repr(source), repr(read_credential(Kind.TOKEN, token))):
        assert token.decode() not in text


# ---------------------------------------------------------------- proxies


def test_a_proxy_ends_with_the_first_of_its_certificates() -> None:
    assert proxy_end(proxies.proxy(END, END + 9, END + 99)) == END
    assert proxy_end(proxies.proxy(END + 99, END, END + 9)) == END
    assert proxy_end(proxies.proxy(LAST_END)) == LAST_END


def test_a_certificate_of_the_openssl_program(tmp_path: Path) -> None:
    """With the text that grid tools leave between the blocks."""
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/O=G/CN=A"]
    files = ["-keyout", f"{tmp_path}/key", "-out", f"{tmp_path}/certificate", "-text"]
    before = time.time()
    subprocess.run(["openssl", *made, *files], check=True, capture_output=True)
    content = (tmp_path / "certificate").read_bytes() + (tmp_path / "key").read_bytes()
    assert before - 1 <= proxy_end(content) - 2 * 86400 <= time.time()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no certificate"),
        (b"garbage", "no certificate"),
        (proxies.private_key(), "no certificate"),
        (proxies.certificate(END), "no private key"),
        (proxies.proxy(END)[:200], "no certificate"),
        (proxies.certificate(END).replace(b"MII", b"AAA", 1), "no certificate"),
    ],
)
def test_what_is_no_proxy(content: bytes, problem: str) -> None:
    with pytest.raises(CredentialError, match=problem):
        proxy_end(content)


@given(st.integers(0, 2000), st.binary(max_size=60))
def test_a_damaged_proxy_is_refused_or_read(offset: int, damage: bytes) -> None:
    content = proxies.proxy(END, END + 1)
    try:
        end = proxy_end(content[:offset] + damage + content[offset + len(damage) :])
    except CredentialError:
        return
    assert isinstance(end, float)


# ---------------------------------------------------------------- tokens


def test_the_end_of_a_token() -> None:
    assert token_end(jwt({"sub": "alice", "exp": int(END)})) == END
    assert token_end(jwt({"exp": END + 0.5})) == END + 0.5
    assert read_credential(Kind.TOKEN, b"\n " + jwt({"exp": END}) + b" \n").end == END


@pytest.mark.parametrize(
    "token", [b"opaque", b"a.b", b"a.b.c", b"MTIz.e30.x", jwt({"sub": "alice"})]
)
def test_a_token_that_does_not_say_when_it_ends(token: bytes) -> None:
    assert token_end(token) == math.inf


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"two words",
        b"a\r\nX-Header: b",
        "tök".encode(),
        jwt([1]),
        jwt("exp"),
        jwt({"exp": "tomorrow"}),
        jwt({"exp": True}),
        jwt({"exp": -1}),
        jwt({"exp": 10**400}),
        jwt({"exp": math.nan}),
        jwt({"exp": math.inf}),
        jwt({"exp": END})[:40] + b".x",
    ],
)
def test_what_is_no_token(token: bytes) -> None:
    with pytest.raises(CredentialError):
        token_end(token)


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.floats(0, LAST_END))
def test_every_jwt_says_its_end(claims: dict[str, int | str], end: float) -> None:
    assert token_end(jwt({**claims, "exp": end})) == end


@given(st.binary() | st.from_regex(rb"\A[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\Z"))
def test_any_bytes_are_refused_or_read(token: bytes) -> None:
    try:
        end = token_end(token)
    except CredentialError:
        return
    assert 0 <= end <= math.inf


def test_claims_nested_without_end_are_refused() -> None:
    nested = base64.urlsafe_b64encode(b"[" * 200_000).rstrip(b"=")
    with pytest.raises(CredentialError, match="claims"):
        token_end(jwt({}).split(b".")[0] + b"." + nested + b".x")


# ---------------------------------------------------------------- what is said


def test_what_people_read() -> None:
    assert validity(math.inf) == "Credential does not say how long it is valid"
    assert validity(END) == f"Credential is valid until {time.ctime(END)}"


def test_warnings_before_the_end() -> None:
    agenda = Agenda(10_000, 0, (3600, 600))
    assert agenda.wait(0) == 6400
    assert agenda.take(6399) is None
    assert agenda.take(6400) == 3600
    assert agenda.take(6400) is None
    assert agenda.wait(6400) == 3000
    assert agenda.take(9400) == 600
    assert agenda.take(10_000) == 0
    assert agenda.take(10**9) is None
    assert agenda.wait(10**9) == math.inf


def test_what_was_slept_through_is_said_once() -> None:
    agenda = Agenda(10_000, 0, (3600, 600))
    assert agenda.take(9_500) == 500
    assert agenda.take(20_000) == 0


def test_a_short_lived_credential_is_not_warned_of_at_once() -> None:
    agenda = Agenda(3600, 0, (3600, 600))
    assert agenda.take(0) is None
    assert agenda.wait(0) == 3000


def test_one_that_has_ended_is_told_at_once() -> None:
    agenda = Agenda(100, 200)
    assert agenda.wait(200) == 0
    assert agenda.take(200) == 0


def test_of_one_without_end_nothing_is_said() -> None:
    agenda = Agenda(math.inf, 0)
    assert agenda.take(LAST_END) is None
