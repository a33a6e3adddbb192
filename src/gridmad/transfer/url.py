"""The URLs of a CP, MKDIR, RMDIR or EXISTS, as gwd and its users write them.

    URL     = "/" path                                a file of the host that gwd runs on
            | "file:" ["//" [host]] "/" path
            | scheme "://" [user "@"] host [":" port] "/" path
    path    = anything; "~" or "~user" as its first step is a home directory

gwd pastes names into `file://<folder>/<name>` and `gsiftp://<host>/~/<folder>/<name>` without
escaping anything.  So this is not RFC 3986: "%", "?" and "#" are letters of a file's name and
stay as they are; whoever speaks to a real web server escapes `path` again.  Slashes may be
doubled; they stay too, since root:// gives them a meaning.

Source: GridWay 5.14, src/tm/gw_tm_prolog.c and gw_tm_epilog.c.  No I/O happens here.
"""

import re
from dataclasses import dataclass, replace

from gridmad.errors import UrlError
from gridmad.options import HIGHEST_PORT

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(
    r"(?:(?P<user>.*)@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[^\]]+)?\]|[^:@\[\]]*)(?::(?P<port>[0-9]*))?",
    re.DOTALL | re.ASCII,
)
_TILDE = re.compile(r"/+~([^/]*)(?:/+(.*))?", re.DOTALL)
_JOB_DIRECTORY = re.compile(r"\.gw_.+_[0-9]+", re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class Url:
    """Where a file is."""

    scheme: str
    """In lower case; "file" for a bare path."""
    host: str
    """In lower case, an IPv6 address without its brackets; "" where file: names none."""
    path: str
    """As it was written, from its first slash on."""
    port: int | None = None
    user: str = ""

    @property
    def home_user(self) -> str | None:
        """Whose home directory the path starts from: "" is one's own, None is no one's.

        A file: URL is never relative to a home.
        """
        found = self._tilde()
        return found[1] if found else None

    @property
    def steps(self) -> str:
        """The path below the home directory, or below "/"; it does not start with a slash."""
        found = self._tilde()
        return (found[2] or "") if found else self.path.lstrip("/")

    @property
    def is_in_job_directory(self) -> bool:
        """Whether it is a job's directory, `.gw_<user>_<jid>`, or something in it."""
        return any(map(is_job_directory, self.path.split("/")))

    @property
    def job_folders(self) -> list["Url"]:
        """From a job's directory to the folder that the file is in; none outside of those."""
        steps = self.path.split("/")
        first = next((i for i, step in enumerate(steps) if is_job_directory(step)), len(steps))
        return [
            replace(self, path="/".join(steps[: i + 1]))
            for i in range(first, len(steps) - 1)
            if steps[i]
        ]

    def beside(self, name: str) -> "Url":
        """Another file in the same folder."""
        return replace(self, path=f"{self.path.rpartition('/')[0]}/{name}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}://{user}{host}{port}{self.path}"

    def _tilde(self) -> re.Match[str] | None:
        return None if self.scheme == "file" else _TILDE.fullmatch(self.path)


def is_job_directory(name: str) -> bool:
    """Whether gwd gives a job's directory such a name."""
    return _JOB_DIRECTORY.fullmatch(name) is not None


def parse(text: str) -> Url:
    """Read one URL; UrlError says what is wrong with it."""
    if text in {"", "-"}:
        raise UrlError("no URL is given")
    if "\0" in text:
        raise UrlError(f"{text!r} holds a NUL character")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UrlError(f"{text!r} cannot be a name in UTF-8") from None
    if text.startswith("/"):
        return Url("file", "", text)
    found = _SCHEME.fullmatch(text)
    if not found:
        raise UrlError(f"{text} is neither a URL nor an absolute path")
    scheme, rest = found[1].lower(), found[2]
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        return _with_authority(text, scheme, authority, slash + path)
    if scheme != "file":
        raise UrlError(f"{text} names no host: {scheme}://HOST/PATH is expected")
    if not rest.startswith("/"):
        raise UrlError(f"{text} is relative: file:///PATH is expected")
    return Url(scheme, "", rest)


def _with_authority(text: str, scheme: str, authority: str, path: str) -> Url:
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        raise UrlError(f"{text} has no valid HOST:PORT")
    host = found["host"].removeprefix("[").removesuffix("]").lower()
    if not host and (scheme != "file" or authority):
        raise UrlError(f"{text} names no host: {scheme}://HOST/PATH is expected")
    port = int(found["port"]) if found["port"] and len(found["port"]) <= 5 else None
    if found["port"] and (port is None or not 0 < port <= HIGHEST_PORT):
        raise UrlError(f"{text} has no valid port: {found['port']}")
    if not path:
        raise UrlError(f"{text} names no file")
    return Url(scheme, host, path, port, found["user"] or "")
