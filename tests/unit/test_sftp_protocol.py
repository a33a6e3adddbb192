"""The SFTP protocol, by literals and by what may come."""

import contextlib
import struct
import tracemalloc
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.transfer import sftp_protocol as sftp
from gridmad.transfer.sftp_protocol import (
    Answer,
    Answers,
    Attributes,
    Kind,
    SftpProtocolError,
    StatusError,
)

Packet = tuple[int, int, bytes]
packets = st.lists(
    st.tuples(
        st.just(Kind.DATA.value) | st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary()
    ),
    max_size=8,
)


def packet(kind: int, number: int, fields: bytes) -> bytes:
    return struct.pack(">IBI", 5 + len(fields), kind, number) + fields


def answer(kind: Kind, fields: bytes) -> Answer:
    return Answer(kind, 7, memoryview(fields))


def status(code: int, text: bytes = b"text") -> Answer:
    return answer(Kind.STATUS, sftp.number(code) + sftp.string(text) + sftp.string(b"en"))


def name(path: bytes, attributes: bytes = bytes(4)) -> bytes:
    return sftp.string(path) + sftp.string(b"-rw-r--r-- 1 " + path) + attributes


def test_requests() -> None:
    assert sftp.init() == bytes.fromhex("00000005 01 00000003")
    read = sftp.request(Kind.READ, 9, sftp.string(b"\1\2") + sftp.place(1 << 33, 4096))
    assert read == bytes.fromhex("00000017 05 00000009 00000002 0102 0000000200000000 00001000")
    write = sftp.request(Kind.WRITE, 9, sftp.string(b"h") + sftp.place(0, 3), 3) + b"abc"
    assert write == bytes.fromhex(
        "00000019 06 00000009 00000001 68 0000000000000000 00000003 616263"
    )
    assert sftp.attributes(Attributes()) == bytes(4)
    assert sftp.attributes(Attributes(mode=0o700)) == bytes.fromhex("00000004 000001c0")


@given(packets, st.data())
def test_packets_come_in_any_pieces(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(packet(*one) for one in sent)
    answers, got = Answers(), []
    while stream:
        count = data.draw(st.integers(1, len(stream)))
        for one in answers.feed(stream[:count]):
            got.append((one.kind, one.number, b"".join((one.fields, *one.more))))
        stream = stream[count:]
    assert got == sent


@pytest.mark.parametrize("length", [0, 4, sftp.MAX_PACKET + 1, 2**32 - 1])
def test_lengths_that_cannot_be(length: int) -> None:
    with pytest.raises(SftpProtocolError):
        list(Answers().feed(struct.pack(">IBI", length, 101, 1)))


def test_extensions() -> None:
    fields = sftp.string(b"a@b") + sftp.string(b"1")
    assert sftp.read_extensions(Answer(Kind.VERSION, 3, memoryview(fields))) == {b"a@b": b"1"}
    with pytest.raises(SftpProtocolError):
        sftp.read_extensions(Answer(Kind.VERSION, 2, memoryview(b"")))
    with pytest.raises(SftpProtocolError):
        sftp.read_extensions(Answer(Kind.STATUS, 3, memoryview(b"")))


def test_statuses() -> None:
    sftp.read_ok(status(0))
    sftp.read_ok(answer(Kind.STATUS, sftp.number(0)))  # servers of old say no more
    with pytest.raises(StatusError, match=r"^no way$") as caught:
        sftp.read_ok(status(3, b"no way"))
    assert caught.value.code == sftp.Status.PERMISSION_DENIED
    with pytest.raises(StatusError, match=r"^status 4$"):
        sftp.read_handle(status(4, b""))
    with pytest.raises(SftpProtocolError):
        sftp.read_ok(answer(Kind.HANDLE, sftp.string(b"h")))


def test_data() -> None:
    data = sftp.read_data(answer(Kind.DATA, sftp.string(b"data")), 4)
    assert data is not None
    assert b"".join(data) == b"data"
    in_pieces = Answer(Kind.DATA, 7, memoryview(sftp.number(4) + b"d"), (memoryview(b"ata"),))
    assert list(map(bytes, sftp.read_data(in_pieces, 9) or ())) == [b"d", b"ata"]
    with pytest.raises(SftpProtocolError):
        sftp.read_data(in_pieces._replace(more=(memoryview(b"at"),)), 9)
    assert sftp.read_data(status(1), 9) is None
    with pytest.raises(StatusError):
        sftp.read_data(status(4), 9)
    with pytest.raises(SftpProtocolError):
        sftp.read_data(answer(Kind.DATA, sftp.string(b"data")[:-1]), 9)


@pytest.mark.parametrize("content", [b"", b"12345"], ids=["nothing", "more"])
def test_data_that_nobody_asked_for(content: bytes) -> None:
    """Without an end: the file would be asked for nothing for ever, or its bytes come twice."""
    with pytest.raises(SftpProtocolError, match=f"READ of 4 bytes got {len(content)}"):
        sftp.read_data(answer(Kind.DATA, sftp.string(content)), 4)


def test_contents_byte_by_byte_take_no_memory_for_each() -> None:
    answers = Answers()
    content = bytes(50_000)
    whole = packet(Kind.DATA, 1, sftp.string(content))
    tracemalloc.start()
    try:
        for i in range(len(whole) - 1):
            assert not list(answers.feed(whole[i : i + 1]))
        assert tracemalloc.get_traced_memory()[0] < 4 * len(whole)
    finally:
        tracemalloc.stop()
    (one,) = answers.feed(whole[-1:])
    assert b"".join(sftp.read_data(one, len(content)) or ()) == content


def test_attributes() -> None:
    fields = struct.pack(">IQIIIII", 0xF, 1 << 40, 1000, 1000, 0o100644, 1, 2)
    found = sftp.read_attributes(answer(Kind.ATTRS, fields))
    assert found == Attributes(1 << 40, 0o100644)
    extended = struct.pack(">II", 0x8000_0000, 1) + sftp.string(b"a") + sftp.string(b"b")
    assert sftp.read_attributes(answer(Kind.ATTRS, extended)) == Attributes()
    with pytest.raises(SftpProtocolError):
        sftp.read_attributes(answer(Kind.ATTRS, fields[:10]))


def test_entries() -> None:
    listing = sftp.number(3) + name(b".") + name(b"..") + name("é".encode())
    entries = sftp.read_entries(answer(Kind.NAME, listing))
    assert entries is not None
    assert [entry.name for entry in entries] == ["é".encode()]
    assert sftp.read_entries(status(1)) is None
    with pytest.raises(StatusError):
        sftp.read_entries(status(3))


@pytest.mark.parametrize("entry", [b"", b"../x", b"a/b", b"/etc", b"a\0b"])
def test_entries_that_lead_elsewhere(entry: bytes) -> None:
    with pytest.raises(SftpProtocolError):
        sftp.read_entries(answer(Kind.NAME, sftp.number(1) + name(entry)))


def test_paths() -> None:
    assert sftp.read_path(answer(Kind.NAME, sftp.number(1) + name(b"/home/me"))) == b"/home/me"
    assert sftp.read_link(answer(Kind.NAME, sftp.number(1) + name(b"../x"))) == b"../x"
    for wrong in (sftp.number(0), sftp.number(1) + name(b"relative")):
        with pytest.raises(SftpProtocolError):
            sftp.read_path(answer(Kind.NAME, wrong))


def test_limits() -> None:
    fields = struct.pack(">QQQQ", 262144, 261120, 261120, 1000)
    assert sftp.read_limits(answer(Kind.EXTENDED_REPLY, fields)) == (261120, 261120)
    with pytest.raises(SftpProtocolError):
        sftp.read_limits(answer(Kind.EXTENDED_REPLY, fields[:20]))


@given(st.sampled_from(Kind), st.binary(max_size=64))
def test_whatever_comes_is_read_or_refused(kind: Kind, fields: bytes) -> None:
    for read in (
        partial(sftp.read_data, most=9), sftp.read_handle, sftp.read_attributes,
        sftp.read_entries, sftp.read_path, sftp.read_limits, sftp.read_ok,
        sftp.read_extensions, sftp.read_link,
    ):  # fmt: skip
        with contextlib.suppress(SftpProtocolError, StatusError):
            read(answer(kind, fields))
