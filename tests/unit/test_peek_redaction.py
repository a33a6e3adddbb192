"""Which values are secrets, and that none of their bytes leaves."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad._screen import MAX_SECRET, MAX_SECRETS
from gridmad.errors import UsageError
from gridmad.peek.redaction import (
    MAX_LINE,
    Redactor,
    compile_patterns,
    known_secrets,
    new_redactor,
)
from tests import screen_specification as specification

VALUE = "s3cret-value"


@pytest.mark.parametrize(
    "name",
    [
        "PASSWORD", "MYSQL_PWD", "PGPASSWORD", "DB_PASS", "db_password", "SSHPASS_PASSPHRASE",
        "GITHUB_TOKEN", "GITHUBTOKEN", "BEARER_TOKEN", "TOKENS", "TOKEN2", "VAULT_SECRET_ID",
        "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "APIKEY", "OPENAI_API_KEY", "api_key",
        "PRIVATE_KEY", "CLIENT_CREDENTIALS", "NPM_AUTH", "HTTP_AUTHORIZATION", "OAUTH2_CODE",
        "PASSCODE", "Passwd", "SECRETS",
    ],
)  # fmt: skip
def test_a_name_tells_a_secret(name: str) -> None:
    assert known_secrets({name: VALUE}) == [VALUE.encode()]


@pytest.mark.parametrize(
    "name",
    [
        "HOME", "PWD", "OLDPWD", "PATH", "KEYBOARD", "KEY", "AUTHOR", "GIT_AUTHOR_NAME",
        "XAUTHORITY", "SSH_AUTH_SOCK", "BEARER_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE",
        "TOKENIZERS_PARALLELISM", "SECRETARY", "PASSENGER_COUNT", "BYPASS_CACHE", "COMPASS",
        "TOKEN_ENDPOINT", "AUTH_TYPE", "X509_USER_PROXY", "_CONDOR_JOB_AD", "PASSWORD_LIFETIME",
    ],
)  # fmt: skip
def test_a_name_tells_that_it_is_none(name: str) -> None:
    assert known_secrets({name: VALUE}) == []


def test_short_values_and_rows_of_one_character_are_no_secrets() -> None:
    assert known_secrets({"TOKEN": "short", "SECRET": "", "PASSWORD": "-" * 80}) == []
    assert known_secrets({"TOKEN": f" {VALUE}\n"}) == [VALUE.encode()]


def test_the_password_within_a_url_is_a_secret() -> None:
    environment = {
        "http_proxy": "http://user:proxy-pass@proxy:3128",
        "SITES": "amqp://a:first-secret@x,amqp://b:second-secret@y",
        "DOCUMENTATION_URL": "https://example.org:8443/@page",
    }
    assert known_secrets(environment) == [b"proxy-pass", b"first-secret", b"second-secret"]


def test_the_password_of_the_broker_and_the_key_are_secrets() -> None:
    key = bytes(range(16))
    assert known_secrets({}, "guest", key) == [b"guest", key, key.hex().encode()]
    assert known_secrets({"TOKEN": VALUE}, VALUE) == [VALUE.encode()]
    assert known_secrets({}, "abc") == []


def test_secrets_are_bounded_and_the_log_tells_none(caplog: pytest.LogCaptureFixture) -> None:
    secrets = known_secrets({f"TOKEN_{number}": f"{VALUE}{number}" for number in range(1000)})
    assert len(secrets) == MAX_SECRETS
    assert known_secrets({"TOKEN": "xy" * MAX_SECRET}) == [b"xy" * (MAX_SECRET // 2)]
    assert "1000 secrets" in caplog.text
    assert VALUE not in caplog.text
    assert "xyxy" not in caplog.text
    assert Redactor(secrets).feed(b"xx" + secrets[-1] + b"\n") == b"xx" + b"*" * 15 + b"\n"


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", b"[z-a]", r"(?P<a>x)(?P<a>y)"])
def test_a_pattern_that_is_none_is_an_error_of_usage(pattern: str | bytes) -> None:
    with pytest.raises(UsageError, match="--redact"):
        compile_patterns([pattern])


def test_nothing_to_redact_needs_no_redactor() -> None:
    assert new_redactor([], []) is None
    assert new_redactor([b"secret"], []) is not None
    assert new_redactor([], compile_patterns(["x"])) is not None


def test_a_line_is_held_back_until_it_ends() -> None:
    redactor = Redactor(patterns=compile_patterns([r"token=\S+", "^pin [0-9]+$"]))
    assert redactor.feed(b"one\npin 1234\r\nmy tok") == b"one\n********\r\n"
    assert redactor.pending == 6
    assert redactor.feed(b"en=abc") == b""
    assert redactor.feed(b"def 50%\r") == b"my ************ 50%\r"
    assert redactor.feed(b"pin 99") == b""
    assert redactor.flush() == b"******"
    assert redactor.pending == 0


def test_a_line_beyond_the_bound_is_searched_in_parts() -> None:
    redactor = Redactor(patterns=compile_patterns(["secret"]))
    assert redactor.feed(b"x" * (MAX_LINE - 1)) == b""
    assert redactor.feed(b"x" * 10 + b"secret") == b"x" * MAX_LINE
    assert redactor.pending == 15
    assert redactor.feed(b"\n") == b"x" * 9 + b"******\n"


def test_patterns_and_secrets_hide_nothing_from_each_other() -> None:
    redactor = Redactor([b"abcdefgh"], compile_patterns([r"key_[a-z]{12}"]))
    assert redactor.feed(b"key_abcdefghijkl key\n") == b"*" * 16 + b" key\n"
    # One secret reaches over the end of a line and of a match.
    redactor = Redactor([b"end\nbegin"], compile_patterns(["the end", "begin now"]))
    assert redactor.feed(b"the end\nbeg") == b"****"
    assert redactor.feed(b"in now\n") == b"*" * 13 + b"\n"


PATTERNS = ["ab", "a+b", "^b", "a$", "a*", "b[^a]a"]
STREAMS = st.lists(
    st.sampled_from([b"a", b"b", b"ab", b"c", b"\n", b"\r", b"abcab", b"c" * 70_000]), max_size=24
).map(b"".join)


@given(
    STREAMS,
    st.lists(st.integers(0, 80), max_size=6),
    st.lists(st.sampled_from(PATTERNS), max_size=3),
    st.lists(st.sampled_from([b"abca", b"b\nab", b"aa"]), max_size=3),
)
@example(b"abcabcab\nabca", [3, 9], ["ab"], [b"abca"])
def test_a_cut_changes_nothing(
    data: bytes, cuts: list[int], patterns: list[str], secrets: list[bytes]
) -> None:
    """The whole stream, masked by literals and by lines, is what all the pieces give."""
    expected = bytearray(specification.mask(data, secrets))
    for line in re.finditer(rb"[^\r\n]{1,65536}", data):
        for pattern in patterns:
            for match in re.finditer(pattern.encode(), line[0]):
                start, end = line.start() + match.start(), line.start() + match.end()
                expected[start:end] = b"*" * (end - start)
    redactor = Redactor(secrets, compile_patterns(patterns))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    left = b""
    for start, end in pairwise(edges):
        left += redactor.feed(data[start:end])
        assert len(left) + redactor.pending == end
        assert not patterns or redactor.pending <= MAX_LINE + 8
    assert left + redactor.flush() == expected
