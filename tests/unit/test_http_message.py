"""HTTP/1.1, by literals and by what may come."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.errors import DriverError
from gridmad.transfer import http_message as http
from gridmad.transfer.http_message import Chunks, Head, HttpProtocolError


def head(text: str) -> Head:
    found = http.read_head(text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
    assert found is not None
    return found[0]


def test_requests() -> None:
    sent = http.request_head("GET", "/a%20b", {"Host": "h:1", "Accept": "*/*"})
    assert sent == b"GET /a%20b HTTP/1.1\r\nHost: h:1\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0", "日本"])
def test_values_that_cannot_be_in_a_header(value: str) -> None:
    with pytest.raises(DriverError):
        http.request_head("GET", "/", {"Host": value})


@given(st.text())
def test_paths_are_escaped_and_come_back(path: str) -> None:
    path = path.encode("utf-8", "replace").decode()
    escaped = http.escape_path(path)
    assert not set(escaped) & set(' ?#%\r\n\t"<>') - {"%"}
    assert escaped.isascii()
    assert unquote(escaped) == path


def test_answers() -> None:
    found = http.read_head(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nA: 1\r\na:2\r\n\r\n:-)")
    assert found is not None
    answer, length = found
    assert (answer.status, answer.reason, answer.is_kept, answer.is_success) == (
        201, "Created", True, True
    )  # fmt: skip
    assert answer.headers == {"content-length": "3", "a": "1, 2"}
    assert length == 54
    assert http.body_length(answer, "PUT") == 3
    assert http.body_length(answer, "HEAD") == 0
    assert http.read_head(b"HTTP/1.1 200 OK\r\nA: 1\r\n") is None
    assert not head("HTTP/1.0 200 OK").is_kept
    assert head("HTTP/1.0 200 OK\nConnection: Keep-Alive").is_kept
    assert not head("HTTP/1.1 200 OK\nConnection: close").is_kept
    assert http.body_length(head("HTTP/1.1 200 OK"), "GET") is None
    assert http.body_length(head("HTTP/1.1 204 No"), "GET") == 0
    assert http.body_length(head("HTTP/1.1 200 OK\nContent-Length: 3, 3"), "GET") == 3


def test_redirections() -> None:
    assert head("HTTP/1.1 307 There\nLocation: https://h/x").redirection == "https://h/x"
    assert head("HTTP/1.1 200 OK\nLocation: https://h/x").redirection == ""
    assert head("HTTP/1.1 304 Same").redirection == ""


@pytest.mark.parametrize(
    "text",
    ["SSH-2.0-x", "HTTP/2 200", "HTTP/1.1 999 x", "HTTP/1.1 20", "HTTP/1.1 200 OK\nno header",
     "HTTP/1.1 200 OK\n folded: x", "HTTP/1.1 200 OK\na b: x"],
)  # fmt: skip
def test_what_is_no_answer(text: str) -> None:
    with pytest.raises(HttpProtocolError):
        head(text)


def test_heads_and_lengths_that_cannot_be() -> None:
    with pytest.raises(HttpProtocolError):
        http.read_head(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000)
    for length in ("-1", "3, 4", "0x3", "", "9" * 20):
        with pytest.raises(HttpProtocolError):
            http.body_length(head(f"HTTP/1.1 200 OK\nContent-Length: {length}"), "GET")
    assert http.is_chunked(head("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked"))
    with pytest.raises(HttpProtocolError):
        http.is_chunked(head("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked"))


def unchunk(stream: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    """The data of a chunked body that comes in pieces, and what follows it."""
    chunks, data = Chunks(), b""
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    for piece in [*pieces, stream]:
        while piece and not chunks.is_over:
            if chunks.left:
                data += piece[: chunks.left]
                taken = min(chunks.left, len(piece))
                chunks.left -= taken
            else:
                taken = chunks.feed(piece)
            piece = piece[taken:]
        if chunks.is_over and piece:
            return data, piece
    assert chunks.is_over
    return data, b""


@given(
    st.lists(st.binary(min_size=1)), st.lists(st.integers(1, 20)), st.sampled_from(["", "a: b\r\n"])
)
def test_chunks_come_in_any_pieces(parts: list[bytes], sizes: list[int], trailer: str) -> None:
    stream = b"".join(bytes(piece) for part in parts for piece in http.chunk(part))
    stream += http.LAST_CHUNK.removesuffix(b"\r\n") + trailer.encode() + b"\r\n"
    assert unchunk(stream, sizes)[0] == b"".join(parts)


@pytest.mark.parametrize("stream", [b"x\r\n", b"-1\r\n", b"\r\n", b"3\r\nabcd\r\n", b"1" * 5000])
def test_what_is_no_chunk(stream: bytes) -> None:
    with pytest.raises(HttpProtocolError):
        unchunk(stream, [])


def test_digests() -> None:
    told = head("HTTP/1.1 200 OK\nDigest: adler32=0A0b0c0d, md5=1B2M2Y8AsgTpgAmY7PhCfg==")
    assert http.digest(told, "adler32") == "0a0b0c0d"
    assert http.digest(told, "md5") == "d41d8cd98f00b204e9800998ecf8427e"
    written = head("HTTP/1.1 200 OK\nDigest: md5=D41D8CD98F00B204E9800998ECF8427E")
    assert http.digest(written, "md5") == "d41d8cd98f00b204e9800998ecf8427e"
    assert http.digest(written, "adler32") is None
    assert http.digest(head("HTTP/1.1 200 OK\nDigest: md5=!"), "md5") is None
