"""What is told of a directory that cannot be read."""

import pytest
from ldap3.core.exceptions import LDAPSocketOpenError

from gridmad.errors import TransientError
from gridmad.information.directory import MAX_REASON, Directory, _text
from gridmad.information.ldap_server import Access, Server


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            LDAPSocketOpenError("('socket ssl wrapping error: [SSL] verify failed (_ssl.c:1)',)"),
            "socket ssl wrapping error: [SSL] verify failed (_ssl.c:1)",
        ),
        (
            LDAPSocketOpenError("(\"('closed by the server',)\",)"),
            "closed by the server",
        ),
        (LDAPSocketOpenError("unable to open socket", [(OSError("refused"), ())]), "refused"),
        (OSError("x" * 5000), "x" * MAX_REASON),
        (OSError(), "OSError"),
    ],
)
def test_the_reason_is_one_readable_line(error: Exception, text: str) -> None:
    assert _text(error) == text


def test_certificates_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X509_CERT_DIR", "/nonexistent")
    with pytest.raises(TransientError, match=r"^ldaps://localhost:1/o=grid: "):
        Directory([Server("localhost", 1, True)], Access(), "o=grid", 1.0).fetch([], list)
