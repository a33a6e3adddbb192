"""The text of attribute files: what is read of it, and what is said about the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad import wire
from gridmad.information.attributes import parse_attributes
from gridmad.information.model import HostAttributes

NAMES = st.from_regex(r"[A-Za-z][0-9A-Za-z_]{0,12}", fullmatch=True).filter(
    lambda name: not name.startswith("QUEUE_") and name not in wire.KNOWN_TEXTS
)
TEXTS = st.text(st.characters(exclude_characters='"\n\r', codec="utf-8"), max_size=12)
INTEGERS = st.integers(-(2**31), 2**31 - 1)
GENERIC = st.dictionaries(NAMES, INTEGERS, max_size=6) | st.dictionaries(
    NAMES.filter(lambda name: name not in wire.KNOWN_INTEGERS), TEXTS, max_size=6
)
QUEUES = st.lists(
    st.fixed_dictionaries(
        {"QUEUE_NAME": st.from_regex(r"[a-z-]{1,24}", fullmatch=True), "QUEUE_NODECOUNT": INTEGERS},
        optional={"QUEUE_STATUS": TEXTS, "QUEUE_OTHER": INTEGERS},
    ),
    max_size=5,
)


def text_of(attributes: HostAttributes) -> str:
    payload = attributes.payload.decode()
    return payload.removeprefix("SUCCESS ").removeprefix("-")


@given(st.text(alphabet='AQUEUE_NAME[012]="x y",#\n\t \\é-.5'))
def test_what_is_read_is_what_its_format_reads(text: str) -> None:
    attributes, _ = parse_attributes(text)
    again, problems = parse_attributes(text_of(attributes))
    assert problems == []
    assert again.payload == attributes.payload


@given(GENERIC, QUEUES)
def test_formatted_attributes_are_read_back(
    host: dict[str, int | str], queues: list[dict[str, int | str]]
) -> None:
    attributes = HostAttributes(host, queues)
    again, problems = parse_attributes(text_of(attributes))
    assert problems == []
    assert again.payload == attributes.payload
    if not attributes.dropped and all(
        str(value).isprintable() for part in (host, *queues) for value in part.values()
    ):
        assert again == attributes


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    _, problems = parse_attributes(text)
    lines = text.count("\n") + 1
    assert all(1 <= problem.line <= lines for problem in problems)


def test_the_form_of_gridways_examples() -> None:
    attributes, problems = parse_attributes(
        'HOSTNAME="hydrus.example.org" ARCH="i686"\n'
        "# three nodes were sold\n"
        "NODECOUNT = 4\tCPU_MHZ=3216, CPU_FREE=-1\n"
        'QUEUE_NAME[0]="short" QUEUE_NODECOUNT[0]=4\r\n'
        'QUEUE_NAME[ 2 ] = "long"FORK_NAME=""OS_NAME=\n'
        "NODECOUNT=5"
    )
    assert problems == []
    assert attributes.host == {
        "HOSTNAME": "hydrus.example.org",
        "ARCH": "i686",
        "NODECOUNT": 5,
        "CPU_MHZ": 3216,
        "CPU_FREE": -1,
        "FORK_NAME": "",
    }
    assert attributes.queues == [
        {"QUEUE_NAME": "short", "QUEUE_NODECOUNT": 4},
        {},
        {"QUEUE_NAME": "long"},
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("CPU_MHZ=2000.5", "'2000.5' is no integer: write CPU_MHZ=5"),
        ("ARCH=i686", "'i686' is no integer: write ARCH=5 or ARCH=\"text\""),
        ("nonsense", "'nonsense' is no assignment"),
        ('ARCH="i686', 'the text of ARCH lacks its closing "'),
        ('ARCH= "i686', 'the text of ARCH lacks its closing "'),
        ('QUEUE_NAME[x]="q"', "[x] is no number of a queue: write QUEUE_NAME[0]"),
        ('QUEUE_NAME[-1]="q"', "[-1] is no number of a queue"),
        ('QUEUE_NAME[67]="q"', "from 0 to 66"),
        ("CPU_MHZ=\u0661", "'\u0661' is no integer"),
        ("=5", "'=5' is no assignment"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_read(line: str, said: str) -> None:
    attributes, problems = parse_attributes(f"CPU_SMP=2\n{line}\nNODECOUNT=4")
    assert [problem.line for problem in problems] == [2]
    assert said in problems[0].text
    assert attributes.host == {"CPU_SMP": 2, "NODECOUNT": 4}


def test_further_attributes_stand_after_the_queues() -> None:
    attributes = HostAttributes(
        {"HOSTNAME": "a", "X": 'a"b c'}, [{"QUEUE_NAME": "q"}], {"OS_RELEASE": "4.5", "Y": 1}
    )
    assert attributes.payload == (
        b'SUCCESS HOSTNAME="a" X="a\'b c" QUEUE_NAME[0]="q" OS_RELEASE="4.5" Y=1'
    )
    assert HostAttributes({"A": 1}, [], {"B": 2}).payload == b"SUCCESS A=1 B=2"
    assert HostAttributes({}, [{"QUEUE_NAME": "q"}], {"B": 2}).payload == (
        b'SUCCESS QUEUE_NAME[0]="q" B=2'
    )
    assert HostAttributes({"A": 1}, [{}], {"B": 2}).payload == b"SUCCESS A=1 B=2"
