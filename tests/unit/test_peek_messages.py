"""Messages: what the schema allows comes back, everything else is a FrameError."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gridmad.peek.errors import FrameError
from gridmad.peek.frame import FrameType
from gridmad.peek.messages import (
    MAX_PAYLOAD,
    Ack,
    Alive,
    Begin,
    Bye,
    Denied,
    Ending,
    Eos,
    Extent,
    Gap,
    Hello,
    Message,
    Present,
    Revoked,
    Roll,
    Span,
    Start,
    Token,
)

CLIENT = "0123456789abcdef0123456789abcdef"
DIGEST = "0123456789abcdef" * 4
HUGE = 2**63 - 1

SAMPLES: list[tuple[Message, str]] = [
    (Gap(7, "spool"), '{"length":7,"reason":"spool"}'),
    (
        Hello(CLIENT, 3, {1: Extent(5, 4, 9), 2: Extent(0, 0, 0)}, 2.5, 30.0, "näme", "host", 8),
        (
            f'{{"client":"{CLIENT}","answers":3,"sources":{{"1":{{"from":5,"oldest":4,"end":9}},'
            '"2":{"from":0,"oldest":0,"end":0}},"interval":2.5,"lease":30.0,"name":"näme",'
            '"host":"host","began":8}'
        ),
    ),
    (Alive({1: 1, 2: 2}, {1: HUGE}), f'{{"sent":{{"1":1,"2":2}},"end":{{"1":{HUGE}}}}}'),
    (
        Eos(0, None, None, {1: Ending(9, DIGEST), 2: Ending(0, None)}),
        (
            '{"exit":0,"signal":null,"reason":null,"sources":{"1":{"end":9,"sha256":'
            f'"{DIGEST}"}},"2":{{"end":0,"sha256":null}}}}}}'
        ),
    ),
    (
        Eos(None, None, "not started", {}),
        '{"exit":null,"signal":null,"reason":"not started","sources":{}}',
    ),
    (
        Denied(CLIENT, "ann@desk", 5),
        f'{{"client":"{CLIENT}","holder":"ann@desk","since":5}}',
    ),
    (Revoked(CLIENT, "bob"), f'{{"client":"{CLIENT}","by":"bob"}}'),
    (Token(2, {1: Span(3, 9)}), '{"epoch":2,"sources":{"1":{"from":3,"end":9}}}'),
    (
        Present("job-1", "sim", "node7", 5, {1: 9}, {1: 3}, None, False, 0),
        (
            '{"stream":"job-1","name":"sim","host":"node7","began":5,"end":{"1":9},'
            '"committed":{"1":3},"holder":null,"ended":false,"epoch":0}'
        ),
    ),
    (
        Begin(CLIENT, "takeover", {1: Start("rest"), 2: Start("tail", 10)}, {1: 4096}, "ann"),
        (
            f'{{"client":"{CLIENT}","mode":"takeover","from":{{"1":{{"rest":true}},'
            '"2":{"tail":10}},"limit":{"1":4096},"who":"ann"}'
        ),
    ),
    (
        Begin(CLIENT, "exclusive", {1: Start("offset", 7), 2: Start("since", 8)}, {}, ""),
        (
            f'{{"client":"{CLIENT}","mode":"exclusive","from":{{"1":{{"offset":7}},'
            '"2":{"since":8}},"limit":{},"who":""}'
        ),
    ),
    (
        Ack(CLIENT, {1: 5}, {1: 9, 2: 8}),
        f'{{"client":"{CLIENT}","committed":{{"1":5}},"limit":{{"1":9,"2":8}}}}',
    ),
    (Bye(CLIENT, {1: 5}, True), f'{{"client":"{CLIENT}","committed":{{"1":5}},"done":true}}'),
    (Roll(CLIENT), f'{{"client":"{CLIENT}"}}'),
]
TYPES = {type(message): message for message, _ in SAMPLES}
samples = pytest.mark.parametrize(
    ("message", "text"), SAMPLES, ids=[type(message).__name__ for message, _ in SAMPLES]
)


@samples
def test_messages_come_back(message: Message, text: str) -> None:
    assert message.encode() == text.encode()
    assert type(message).decode(text.encode()) == message


def test_each_type_with_a_schema_has_its_message() -> None:
    assert {cls.type for cls in TYPES} == set(FrameType) - {FrameType.CHUNK, FrameType.PROBE}


@samples
def test_each_member_is_needed(message: Message, text: str) -> None:
    for name in json.loads(text):
        members = json.loads(text)
        del members[name]
        with pytest.raises(FrameError, match=f"{name} is missing"):
            type(message).decode(json.dumps(members).encode())


@samples
def test_unknown_members_are_ignored(message: Message, text: str) -> None:
    members = json.loads(text)
    members["new"] = {"1": [1.5, None, {"x": "y"}]}
    for member in members.values():
        if isinstance(member, dict):
            member["3"] = -1
    assert type(message).decode(json.dumps(members).encode()) == message


@samples
@pytest.mark.parametrize(
    "wrong",
    [-1, 2**63, 1.5, 1e400, "7", [], [1], {"1": -1}, {"1": True}, {"1": None}, {"1": "1"},
     {"1": {}}, {"1": 1.0}],
    ids=repr,
)  # fmt: skip
def test_no_member_takes_anything_else(message: Message, text: str, wrong: object) -> None:
    """Each wrong value is wrong for all members but some."""
    taken = {
        "7": {"name", "host", "holder", "by", "who", "reason", "stream"},
        1.5: {"interval", "lease"},
    }
    for name in json.loads(text):
        allowed = taken.get(wrong, set()) if isinstance(wrong, str | float) else set()
        if name in allowed and not (name == "reason" and isinstance(message, Gap)):
            continue
        members = json.loads(text) | {name: wrong}
        payload = json.dumps(members).replace("Infinity", "1e400")
        with pytest.raises(FrameError, match=name):
            type(message).decode(payload.encode())


def refused(message: Message, **changes: object) -> None:
    members = json.loads(message.encode()) | changes
    with pytest.raises(FrameError):
        type(message).decode(json.dumps(members).encode())


@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        (Gap, {"length": 0}), (Gap, {"length": True}), (Gap, {"length": None}),
        (Gap, {"reason": "other"}), (Gap, {"reason": "spool\n"}),
        (Hello, {"client": CLIENT.upper()}), (Hello, {"client": CLIENT + "0"}),
        (Hello, {"client": CLIENT + "\n"}), (Hello, {"answers": True}),
        (Hello, {"interval": 0}), (Hello, {"interval": 1e9}), (Hello, {"lease": True}),
        (Hello, {"lease": 10**30}), (Hello, {"lease": -1}), (Hello, {"name": "x" * 257}),
        (Hello, {"name": "\ud800"}), (Hello, {"sources": {"1": {"from": 1, "end": 2}}}),
        (Alive, {"sent": [["1", 2]]}), (Alive, {"end": None}),
        (Eos, {"exit": 256}), (Eos, {"exit": -1}), (Eos, {"exit": True}), (Eos, {"signal": 0}),
        (Eos, {"signal": 128}), (Eos, {"reason": 5}),
        (Eos, {"sources": {"1": {"end": 1, "sha256": DIGEST[1:]}}}),
        (Eos, {"sources": {"1": {"end": 1, "sha256": DIGEST.upper()}}}),
        (Token, {"epoch": 2**32}),
        (Present, {"stream": "a/b"}), (Present, {"stream": ""}), (Present, {"ended": 1}),
        (Present, {"ended": None}), (Present, {"holder": False}),
        (Begin, {"mode": "EXCLUSIVE"}), (Begin, {"mode": None}), (Begin, {"from": {}}),
        (Begin, {"from": {"3": {"rest": True}}}), (Begin, {"from": {"1": {}}}),
        (Begin, {"from": {"1": {"rest": False}}}), (Begin, {"from": {"1": {"rest": 1}}}),
        (Begin, {"from": {"1": {"rest": True, "tail": 1}}}),
        (Begin, {"from": {"1": {"tail": -1}}}), (Begin, {"from": {"1": {"tail": True}}}),
        (Begin, {"from": {"1": {"since": 1.0}}}), (Begin, {"from": {"1": "rest"}}),
        (Bye, {"done": "true"}), (Bye, {"done": 0}),
    ],
)  # fmt: skip
def test_bounds(cls: type[Message], changes: dict[str, object]) -> None:
    refused(TYPES[cls], **changes)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"\xff{}", b'{"client":"\xed\xa0\x80"}',
        b'{"client":"%s","client":"%s"}' % (CLIENT.encode(), CLIENT.encode()),
        b'{"client":"%s","x":{"y":1,"y":2}}' % CLIENT.encode(),
        b'{"client":"%s","x":NaN}' % CLIENT.encode(),
        b'{"client":"%s","x":-Infinity}' % CLIENT.encode(),
        b'{"client":"%s"} x' % CLIENT.encode(),
        b'\xef\xbb\xbf{"client":"%s"}' % CLIENT.encode(),
        '{"client":"0"}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_no_message(payload: bytes) -> None:
    with pytest.raises(FrameError):
        Roll.decode(payload)


def test_a_message_has_a_bound() -> None:
    text = b'{"client":"%s","x":"' % CLIENT.encode()
    exact = text + b"x" * (MAX_PAYLOAD - len(text) - 2) + b'"}'
    assert Roll.decode(exact) == Roll(CLIENT)
    with pytest.raises(FrameError, match="at most 4096"):
        Roll.decode(exact + b" ")


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"x":', b"}")])
def test_nesting_has_a_bound(open_: bytes, close: bytes) -> None:
    def nested(depth: int) -> bytes:
        inner = open_ * (depth - 1) + b"1" + close * (depth - 1)
        return b'{"client":"%s","x":%s}' % (CLIENT.encode(), inner)

    assert Roll.decode(nested(8)) == Roll(CLIENT)
    for depth in (9, 500, 600):
        with pytest.raises(FrameError, match="deeply"):
            Roll.decode(nested(depth))
    with pytest.raises(FrameError, match="deeply"):
        Roll.decode(open_ * (MAX_PAYLOAD // len(open_)))


def test_brackets_in_texts_are_not_nesting() -> None:
    for text in ("[{" * 100, '\\"[[[[[[[[[[', "\\" * 9 + "[" * 9 + '"' + "{" * 9):
        message = Revoked(CLIENT, text)
        assert Revoked.decode(message.encode()) == message


def test_texts_are_made_sendable() -> None:
    worst = "\x00" * 100 + "\udcff" * 100 + "\U0001f600" * 100
    sent = Present.decode(Present("s" * 128, worst, worst, 1, {}, {}, worst, True, 0).encode())
    assert sent.name == sent.host == sent.holder == "?" * 200 + "\U0001f600" * 56
    fullest = "\U0001f600" * 300
    offsets = {1: HUGE, 2: HUGE}
    message = Present("s" * 128, fullest, fullest, HUGE, offsets, offsets, fullest, False, 7)
    assert Present.decode(message.encode()) == replace(
        message, name=fullest[:256], host=fullest[:256], holder=fullest[:256]
    )


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["1", "2", "from", "end", "rest", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("cls", TYPES)
@given(noise=st.binary(max_size=200))
@example(noise=b'"' + b'\\"' * 2000)
@example(noise=b"-" * 4000)
@example(noise=b"1" * 4096)
def test_any_bytes(cls: type[Message], noise: bytes) -> None:
    with pytest.raises(FrameError):
        cls.decode(noise)


@pytest.mark.parametrize("cls", TYPES)
@given(data=st.data())
def test_any_members(cls: type[Message], data: st.DataObject) -> None:
    """Whatever a member is, the message is refused or can be sent on as it is."""
    members = json.loads(TYPES[cls].encode())
    name = data.draw(st.sampled_from(sorted(members)))
    members[name] = data.draw(json_values)
    try:
        message = cls.decode(json.dumps(members).encode())
    except FrameError:
        return
    again = json.loads(message.encode())
    assert set(again) == set(members)
    assert type(again[name]) in {type(members[name]), float}
