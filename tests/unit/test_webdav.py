"""What WebDAV servers answer."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import TransientError
from gridmad.transfer import webdav
from gridmad.transfer.webdav import CopyAnswer, Resource

APACHE = b"""<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:"><D:response><D:href>/data/</D:href><D:propstat><D:prop>
<D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status>
</D:propstat><D:propstat><D:prop><D:getcontentlength/></D:prop>
<D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
<D:response><D:href>https://host/data/a%20b%25</D:href><D:propstat><D:prop><D:resourcetype/>
<D:getcontentlength>12</D:getcontentlength></D:prop></D:propstat></D:response></D:multistatus>"""

XROOTD = """<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns1="http://apache.org/dav/props/"><D:response
 xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/"><D:href>/data/é b%20c</D:href>
<D:propstat><D:prop><lp1:getcontentlength>5</lp1:getcontentlength><lp1:iscollection>0
</lp1:iscollection></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>""".encode()


def test_properties() -> None:
    folder, file = webdav.read_resources(APACHE)
    assert folder == Resource("/data", None, True)
    assert file == Resource("/data/a%20b%25", 12, False)
    assert file.names == ["a%20b%25", "a b%"]
    [plain] = webdav.read_resources(XROOTD)
    assert plain == Resource("/data/é b%20c", 5, False)
    assert plain.names[0] == "é b%20c"


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\xff\xfe", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>']
)
def test_what_is_no_answer(content: bytes) -> None:
    with pytest.raises(TransientError):
        webdav.read_resources(content)


@given(st.binary())
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(TransientError):
        webdav.read_resources(content)
    webdav.read_macaroon(content)


def test_macaroons() -> None:
    assert webdav.read_macaroon(b'{"macaroon": "MDAx-_=", "expires_in": 60}') == "MDAx-_="
    for wrong in (
        b"",
        b"[]",
        b"{}",
        b'{"macaroon": 1}',
        b'{"macaroon": "a b"}',
        b'{"macaroon": ""}',
    ):
        assert webdav.read_macaroon(wrong) == ""


MARKERS = b"""Perf Marker
Timestamp: 1795614483
Stripe Index: 0
Stripe Bytes Transferred: 1048576
Total Stripe Count: 1
End
"""


@given(st.integers(1, 30))
def test_copies_between_servers(size: int) -> None:
    for end, failure in (
        (b"success: Created\n", None),
        (b"failure: rejected GET: 403 Forbidden", "rejected GET: 403 Forbidden"),
        (b"", "the server did not say how it ended"),
    ):
        answer = CopyAnswer()
        stream = MARKERS + end
        for start in range(0, len(stream), size):
            answer.feed(stream[start : start + size])
        answer.close()
        assert answer.failure == failure
        assert answer.moved == 1_048_576
