import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DriverError, UrlError
from gridmad.transfer.url import Url, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b", Url("file", "", "/a/b")),
        ("//a//b", Url("file", "", "//a//b")),
        ("file:///a/b", Url("file", "", "/a/b")),
        ("file:/a/b", Url("file", "", "/a/b")),
        ("FILE:///A", Url("file", "", "/A")),
        ("file://localhost/a", Url("file", "localhost", "/a")),
        ("file:////opt/gw/var/0//checkpoint", Url("file", "", "//opt/gw/var/0//checkpoint")),
        ("gsiftp://H.Example/~/x", Url("gsiftp", "h.example", "/~/x")),
        ("gsiftp://h:2811/x", Url("gsiftp", "h", "/x", 2811)),
        ("gsiftp://h:/x", Url("gsiftp", "h", "/x")),
        ("gsiftp://[::1]:2811/x", Url("gsiftp", "::1", "/x", 2811)),
        ("gsiftp://[FE80::1%eth0]/x", Url("gsiftp", "fe80::1%eth0", "/x")),
        ("sftp://me@h/x", Url("sftp", "h", "/x", None, "me")),
        ("sftp://me@site@h/x", Url("sftp", "h", "/x", None, "me@site")),
        ("root://h:1094//store/x", Url("root", "h", "//store/x", 1094)),
        ("remote://h/~/.gw_u_1/a b", Url("remote", "h", "/~/.gw_u_1/a b")),
        ("file:///a%20b?c#d", Url("file", "", "/a%20b?c#d")),
        ("file:///a:b@c", Url("file", "", "/a:b@c")),
        ("gsiftp://h/ü\udcff", Url("gsiftp", "h", "/ü\udcff")),
    ],
)
def test_parts(text: str, expected: Url) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "user", "steps"),
    [
        ("gsiftp://h/~/x/y", "", "x/y"),
        ("gsiftp://h/~", "", ""),
        ("gsiftp://h/~/", "", ""),
        ("gsiftp://h//~//x//y", "", "x//y"),
        ("remote://h/~bob/x", "bob", "x"),
        ("gsiftp://h/~bob", "bob", ""),
        ("gsiftp://h/x/~/y", None, "x/~/y"),
        ("gsiftp://h//x", None, "x"),
        ("file:///~/x", None, "~/x"),
        ("/~/x", None, "~/x"),
    ],
)
def test_home(text: str, user: str | None, steps: str) -> None:
    url = parse(text)
    assert (url.home_user, url.steps) == (user, steps)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no URL"),
        ("-", "no URL"),
        ("a/b", "neither a URL nor an absolute path"),
        ("./a", "neither a URL nor an absolute path"),
        ("~/a", "neither a URL nor an absolute path"),
        ("1x://h/a", "neither a URL nor an absolute path"),
        ("file:a", "relative"),
        ("file:", "relative"),
        ("file://", "names no file"),
        ("file://host", "names no file"),
        ("file://:80/a", "names no host"),
        ("gsiftp:/a", "names no host"),
        ("gsiftp:///a", "names no host"),
        ("gsiftp://me@/a", "names no host"),
        ("gsiftp://h", "names no file"),
        ("gsiftp://h:x/a", "no valid HOST:PORT"),
        ("gsiftp://h:1:2/a", "no valid HOST:PORT"),
        ("gsiftp://[::1/a", "no valid HOST:PORT"),
        ("gsiftp://h:0/a", "no valid port"),
        ("gsiftp://h:65536/a", "no valid port"),
        ("gsiftp://h:99999999999/a", "no valid port"),
        ("gsiftp://h:\u0661/a", "no valid HOST:PORT"),
        ("file:///a\0b", "NUL"),
        ("file:///a\ud800", "UTF-8"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(UrlError, match=reason):
        parse(text)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse("/a").path = "/b"  # type: ignore[misc]


NAMES = st.text(
    st.one_of(
        st.sampled_from(" %?#@:[]~\"'\\;&=+/.\t\n\r"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    )
)


@given(NAMES)
def test_a_path_is_kept_letter_by_letter(name: str) -> None:
    assert parse(f"/{name}").path == f"/{name}"
    assert parse(f"file:///{name}").path == f"/{name}"
    assert parse(f"gsiftp://h:2811/{name}") == Url("gsiftp", "h", f"/{name}", 2811)
    assert parse(f"gsiftp://h/~/a{name}").steps == f"a{name}"


@given(
    scheme=st.text(string.ascii_lowercase, min_size=1),
    host=st.text(string.ascii_lowercase + string.digits + ".-_", min_size=1),
    port=st.integers(1, 65535),
    user=st.text(string.ascii_letters, max_size=3),
)
def test_an_authority_is_told_apart(scheme: str, host: str, port: int, user: str) -> None:
    account = f"{user}@" if user else ""
    assert parse(f"{scheme}://{account}{host}:{port}/x") == Url(scheme, host, "/x", port, user)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        url = parse(text)
    except DriverError as error:
        assert str(error)  # noqa: PT017 - either way is right
    else:
        assert url.path.startswith("/")
        assert text.endswith(url.path)
