"""Globus's own reader of RSL takes what our writer writes, and reads it as ours does.

What Globus has read it writes again, in its own spelling, which ours must read as the same job.
The library is that of Debian's package libglobus-rsl2.
"""

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridmad.execution.description import parse_description
from gridmad.execution.description.rsl_writer import rsl
from tests.services.required import skip_without
from tests.unit.test_rsl_writer import TEXT

Respell = Callable[[bytes], bytes | None]


@pytest.fixture(scope="module")
def respell() -> Respell:
    """RSL as Globus writes what it read; None if it could not be read."""
    try:
        library = ctypes.CDLL("libglobus_rsl.so.2")
    except OSError as error:
        skip_without("globus-rsl", f"there is no libglobus_rsl: {error}")
    parse, unparse = library.globus_rsl_parse, library.globus_rsl_unparse
    parse.argtypes, parse.restype = [ctypes.c_char_p], ctypes.c_void_p
    unparse.argtypes, unparse.restype = [ctypes.c_void_p], ctypes.c_char_p

    def run(text: bytes) -> bytes | None:
        tree = parse(text)
        spelled: bytes | None = unparse(tree) if tree else None
        return spelled

    return run


@given(
    arguments=st.lists(TEXT, max_size=6),
    environment=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), TEXT),
)
def test_what_is_written_is_read_alike(
    respell: Respell, arguments: list[str], environment: dict[str, str]
) -> None:
    text = rsl(
        [
            ("executable", "/bin/echo"),
            ("arguments", arguments),
            ("environment", list(environment.items())),
            ("count", 3),
        ]
    ).encode("utf-8", "surrogateescape")
    spelled = respell(text)
    assert spelled is not None
    found = parse_description(spelled)
    assert list(found.arguments) == arguments
    assert found.environment == environment
    assert found.count == 3
    assert found == parse_description(text)


@pytest.mark.parametrize(
    "relations",
    [
        "(arguments=-x 1 a|b a&b a+b x\\y %x)",
        '(arguments=\'it\'\'s\' "say ""hi""" \'\' "it\'s")',
        "(arguments=a#b \"a\" # 'b' a#b#c)",
        "(arguments= (* one *) a (* two\n *** *) b)(* three *)",
        "(arguments=^%a \"b\" 'c' )%% d% e ^~~ ^!x!)",
        "(arguments=$(A)b c$(A)d $(A)#e $(A f)g)(rslSubstitution=(A 1))",
        '(\'Max_Time\'=5)("environment"=(A b)(C "d e"))',
        '(inputFiles=("a" "(null)")(b "http://c"))',
        "(arguments=ä\tb\nc)",
    ],
)
def test_what_people_write_is_read_alike(respell: Respell, relations: str) -> None:
    text = f"&(executable=x){relations}".encode()
    spelled = respell(text)
    assert spelled is not None
    assert parse_description(spelled) == parse_description(text)
