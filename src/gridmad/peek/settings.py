"""What `msgpeek` is told: by options, the environment and a configuration file.

An option wins over the environment, that over the file, and that over the default.  Every value
arrives as text and is checked in one place, so a mistake is told in the same words wherever it
was made.
"""

import getpass
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gridmad.errors import UsageError
from gridmad.peek.values import (
    Address,
    addresses,
    is_loopback,
    path,
    port,
    quoted,
)
from gridmad.secret import read_secret

if TYPE_CHECKING:
    from gridmad.peek.channel import Endpoint, Login
    from gridmad.peek.stream import Templates

DEFAULT_TIMEOUT: Final = 120.0
"""Seconds of silence after which a client ends."""
MAX_FILE: Final = 1 << 20
"""Bytes of a configuration file."""
MAX_SECRET: Final = 4096
"""Bytes of a file that holds a password."""
PREFIX: Final = "MSGPEEK_"

CONNECTION: Final = (
    "host",
    "port",
    "user",
    "password",
    "password-file",
    "ca",
    "certificate",
    "certificate-key",
    "vhost",
    "key-file",
    "timeout",
    "color",
    "output",
)
WRAP: Final = (
    "spool-folder",
    "spool-size",
    "park",
    "when-full",
    "lease",
    "linger",
    "rate",
    "redact",
)
DESTINATIONS: Final = ("control", "data", "park", "token", "roll", "present")
LISTS: Final = frozenset({"host", "redact"})

T = TypeVar("T")
D = TypeVar("D")


def read_key(file: Path) -> bytes:
    """A stream's key: 16 to 64 bytes as they are, or in hexadecimal digits; UsageError."""
    from gridmad.peek.stream import MAX_KEY, MIN_KEY

    content = read_secret(file, 4 * MAX_KEY, "the key file")
    digits = content.strip()
    if re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", digits) and len(digits) >= 2 * MIN_KEY:
        content = bytes.fromhex(digits.decode("ascii"))
    if not MIN_KEY <= len(content) <= MAX_KEY:
        raise UsageError(
            f"the key file {quoted(file)} holds {len(content)} bytes: "
            f"{MIN_KEY} to {MAX_KEY} are a key, raw or as hexadecimal digits"
        )
    return content


def read_password(file: Path) -> str:
    """The first line of a password file; UsageError where it is empty or others may read it."""
    lines = read_secret(file, MAX_SECRET, "the password file").splitlines()
    return _password(lines[0] if lines else b"", f"the password file {quoted(file)}")


def ask_password() -> str:
    """A password from the terminal, or a line of stdin where there is none; UsageError."""
    try:
        if sys.stdin is not None and sys.stdin.isatty():
            return _password(os.fsencode(getpass.getpass("Password: ", sys.stderr)), "the prompt")
        line = b"" if sys.stdin is None else sys.stdin.buffer.readline(MAX_SECRET)
    except EOFError:
        line = b""
    except OSError as error:
        raise UsageError(f"no password can be read from stdin: {error.strerror}") from None
    return _password(line.rstrip(b"\r\n"), "stdin")


def _password(content: bytes, origin: str) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{origin} holds no password in UTF-8") from None
    if not text:
        raise UsageError(f"{origin} holds no password")
    return text


def configuration_file(environment: Mapping[str, str]) -> Path | None:
    """Where the file is if no option tells it; None where there is no home."""
    if base := environment.get("XDG_CONFIG_HOME"):
        folder = Path(base)
    elif home := environment.get("HOME"):
        folder = Path(home, ".config")
    else:
        return None
    return folder / "gridmad" / "msgpeek.toml" if folder.is_absolute() else None


def _read_configuration(file: Path, is_wanted: bool) -> dict[str, dict[str, Any]]:
    """The file's sections, checked for unknown keys; the values outside of one under ""."""
    name = f"the configuration file {quoted(file)}"
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(MAX_FILE + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_wanted:
            return {}
        raise UsageError(f"{name}: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise UsageError(f"{name}: more than {MAX_FILE} bytes")
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: {error}") from None
    sections: dict[str, dict[str, Any]] = {"": {}}
    for key, value in document.items():
        if key in ("wrap", "destinations"):
            if not isinstance(value, dict):
                raise UsageError(f"{name}: {key} is a table: [{key}]")
            sections[key] = value
        else:
            sections[""][key] = value
    known = {"": CONNECTION, "wrap": WRAP, "destinations": DESTINATIONS}
    unknown = [
        f"{section}.{key}" if section else key
        for section, values in sections.items()
        for key in values
        if key not in known[section]
    ]
    if unknown:
        names = ", ".join(quoted(key) for key in unknown[:5])
        raise UsageError(
            f"{name}: unknown: {names} (known: {', '.join(CONNECTION)}, "
            f"[wrap] {', '.join(WRAP)}, [destinations] {', '.join(DESTINATIONS)})"
        )
    if "password" in sections[""] and mode & 0o077:
        raise UsageError(
            f"{name} holds a password and others may read or change it: chmod 600 it first"
        )
    return sections


@dataclass
class Layers:
    """The three places a value may come from.  `options` holds only what was given.

    The password is taken out of `environment`, so that no child gets it.
    """

    options: Mapping[str, Any] = field(repr=False)
    environment: MutableMapping[str, str] = field(repr=False)
    _sections: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _password: str | None = field(default=None, repr=False)
    _file: str = ""

    def __post_init__(self) -> None:
        self._password = self.environment.pop(PREFIX + "PASSWORD", None)
        wanted = self.options.get("config") or self.environment.get(PREFIX + "CONFIG")
        file = _parsed(path, wanted, "--config") if wanted else configuration_file(self.environment)
        if file is not None:
            self._file = str(file)
            self._sections = _read_configuration(file, bool(wanted))

    def texts(self, name: str) -> tuple[list[str], str]:
        """What the first place that knows `name` says, and which place that is."""
        found = self.options.get(name.replace("-", "_"))
        if found is not None:
            return ([str(item) for item in found] if isinstance(found, list) else [str(found)],
                    f"--{name}")  # fmt: skip
        variable = PREFIX + name.replace("-", "_").upper()
        given = self._password if name == "password" else self.environment.get(variable)
        if given:
            return [given], variable
        section = "wrap" if name in WRAP else ""
        value = self._sections.get(section, {}).get(name)
        origin = f"{self._file}: {name}"
        return ([], "") if value is None else (_plain(name, value, origin), origin)

    def value(self, name: str, parse: Callable[[str], T], default: D) -> T | D:
        """The value of `name`; UsageError, which names the place, where it is wrong."""
        texts, origin = self.texts(name)
        return _parsed(parse, texts[-1], origin) if texts else default

    def all_values(self, name: str) -> list[str]:
        """What every place says: for what adds up instead of being replaced."""
        texts = list(self.texts(name)[0])
        value = self._sections.get("wrap" if name in WRAP else "", {}).get(name)
        if value is not None:
            texts += [text for text in _plain(name, value, name) if text not in texts]
        return texts

    def addresses(self) -> list[Address]:
        """The brokers; UsageError where none is named."""
        default = self.value("port", port, None)
        texts, origin = self.texts("host")
        if not texts:
            raise UsageError("no broker is named: -H HOST, MSGPEEK_HOST, or `host = ...` in "
                             + (self._file or "a configuration file"))  # fmt: skip
        return _parsed(lambda _: addresses(texts, default), "", origin)

    def endpoints(self) -> "list[Endpoint]":
        """The brokers as the connection takes them."""
        from gridmad.peek.channel import Endpoint  # TLS is loaded by what connects

        return [Endpoint(*one) for one in self.addresses()]

    def login(self) -> "Login":
        """How to log in, with the password from where it is kept (see `password`)."""
        from gridmad.peek.channel import Login

        certificate = self.value("certificate", path, None)
        key = self.value("certificate-key", path, None)
        if key is not None and certificate is None:
            raise UsageError("--certificate-key needs --certificate")
        for what, file in (("ca", self.value("ca", path, None)), ("certificate", certificate),
                           ("certificate-key", key)):  # fmt: skip
            if file is not None:
                _readable(file, what)
        user = self.value("user", _header, None)
        password = None if user is None else self.password()
        if user is None and ("password" in self.options or "password_file" in self.options):
            raise UsageError("a password without a user: -U USER")
        return Login(
            user=user,
            password=password,
            ca=self.value("ca", path, None),
            certificate=certificate,
            key=key,
            virtual_host=self.value("vhost", _header, None),
        )

    def password(self) -> str | None:
        """From -W (a prompt for `-`), --password-file, or their like in the other places."""
        if self.options.get("password") is not None and self.options.get("password_file"):
            raise UsageError("-W and --password-file cannot both be given")
        texts, origin = self.texts("password")
        file = self.value("password-file", path, None)
        if file is not None and (
            not texts or not _outranks(origin, self.texts("password-file")[1])
        ):
            return read_password(file)
        if not texts:
            return None
        if origin == "--password" and texts[-1] == "-":
            return ask_password()
        return _parsed(_header, texts[-1], origin)

    def key(self) -> bytes | None:
        """The key of the stream."""
        file = self.value("key-file", path, None)
        return None if file is None else read_key(file)

    def templates(self) -> "Templates":
        """How destinations are named; UsageError where a template cannot work."""
        from gridmad.peek.stream import Templates

        given = self._sections.get("destinations", {})
        try:
            return Templates(
                **{name: _plain(name, value, name)[0] for name, value in given.items()}
            )
        except UsageError as error:
            raise UsageError(f"{self._file}: {error}") from None

    def warnings(self) -> list[str]:
        """What is dangerous about the password: seen in ps, or sent in plain."""
        texts, origin = self.texts("password")
        found = []
        if origin == "--password" and texts[-1] != "-":
            found.append("a password on the command line can be seen by others (ps): "
                         "use -W -, --password-file or MSGPEEK_PASSWORD")  # fmt: skip
        plain = [one.host for one in self.addresses() if not one.tls and not is_loopback(one.host)]
        if (texts or self.texts("password-file")[0]) and plain:
            found.append(f"the password goes to {plain[0]} in plain: use stomp+ssl://{plain[0]}")
        return found


def _outranks(one: str, other: str) -> bool:
    """Whether the place `one` wins over the place `other`."""
    return _rank(one) <= _rank(other)


def _rank(origin: str) -> int:
    return 0 if origin.startswith("--") else 1 if origin.startswith(PREFIX) else 2


def _parsed(parse: Callable[[str], T], text: str, origin: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{origin}: {error}") from None


def _plain(name: str, value: object, origin: str) -> list[str]:
    """A TOML value as the texts that an option would have."""
    items = value if isinstance(value, list) and name in LISTS else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        raise UsageError(
            f"{origin}: {'texts are' if name in LISTS else 'a text or number is'} expected"
        )
    try:
        return [str(item) for item in items]
    except ValueError:  # thousands of hexadecimal digits
        raise UsageError(f"{origin}: the number is too large") from None


def _header(text: str) -> str:
    """A text that may be sent in a header; ValueError where it cannot."""
    if not text or len(text.encode("utf-8", "replace")) > 1024 or not text.isprintable():
        raise ValueError("it must have 1 to 1024 printable characters")
    return text


def _readable(file: Path, what: str) -> None:
    try:
        with file.open("rb"):
            return
    except OSError as error:
        raise UsageError(f"--{what} {quoted(file)}: {error.strerror}") from None
