"""Names: streams, clients and the destinations that follow from them (PROTOCOL.md, 1 and 2)."""

import re
import secrets
from dataclasses import dataclass, field, fields
from typing import Final

from gridmad.errors import UsageError

STREAM: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
CLIENT: Final = re.compile(r"[0-9a-f]{32}")
MIN_KEY: Final = 16
MAX_KEY: Final = 64
"""Bytes of a stream's key."""
MAX_DESTINATION: Final = 255
"""Bytes of a destination: what every broker takes as the name of a queue."""

_PLACEHOLDER: Final = re.compile(r"<[^<>]*>")
_TEMPLATE: Final = re.compile(r"[!-~]+")
_WILDCARDS: Final = frozenset("<>*#,?")
_EXCERPT: Final = 40


def valid_stream(text: str) -> str:
    """The stream's name, if it is one; UsageError otherwise (section 1)."""
    if not STREAM.fullmatch(text):
        shown = repr(text[:_EXCERPT]) + ("..." if len(text) > _EXCERPT else "")
        raise UsageError(
            f"{shown} is no stream id: 1 to 128 letters, digits, '.', '_' and '-', no '.' first"
        )
    return text


def new_stream() -> str:
    """The id of a new stream: 128 random bits, since to know it is permission to watch."""
    return secrets.token_hex(16)


def new_client() -> str:
    """The id of a new client."""
    return secrets.token_hex(16)


def _template(default: str, *placeholders: str) -> str:
    metadata = {"placeholders": {f"<{name}>" for name in placeholders}}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Templates:
    """How destinations are named (section 2); UsageError where one cannot work.

    `<id>` stands for the stream and `<client>` for the client.
    """

    control: str = _template("/queue/control.job.<id>", "id")
    data: str = _template("/queue/data.<id>.<client>", "id", "client")
    park: str = _template("/queue/data.<id>", "id")
    token: str = _template("/queue/control.token.<id>", "id")
    roll: str = _template("/topic/peek.roll")
    present: str = _template("/queue/control.roll.<client>", "client")

    def __post_init__(self) -> None:
        templates: dict[str, str] = {}
        for item in fields(self):
            template = getattr(self, item.name)
            expected = item.metadata["placeholders"]
            rest = _PLACEHOLDER.sub("", template)
            if not _TEMPLATE.fullmatch(template) or _WILDCARDS & set(rest):
                raise UsageError(
                    f"the {item.name} destination {template[:_EXCERPT]!r} is not made of "
                    "visible ASCII characters without wildcards"
                )
            if set(_PLACEHOLDER.findall(template)) != expected:
                names = " and ".join(sorted(expected, reverse=True)) or "no placeholder"
                raise UsageError(f"the {item.name} destination {template!r} must have {names}")
            if template in templates:
                raise UsageError(f"{templates[template]} and {item.name} are one destination")
            templates[template] = item.name


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where the frames of one stream go (section 2)."""

    stream: str
    templates: Templates = field(default_factory=Templates)

    def __post_init__(self) -> None:
        valid_stream(self.stream)
        templates = (getattr(self.templates, item.name) for item in fields(Templates))
        longest = max((self._expand(template, "0" * 32) for template in templates), key=len)
        if len(longest) > MAX_DESTINATION:
            raise UsageError(
                f"the destination {longest[:_EXCERPT]}... has more than {MAX_DESTINATION} bytes"
            )

    def _expand(self, template: str, client: str = "") -> str:
        # In this order: a stream cannot contain a placeholder, and neither can a client.
        return template.replace("<id>", self.stream).replace("<client>", client)

    @property
    def control(self) -> str:
        """From clients to the job side."""
        return self._expand(self.templates.control)

    @property
    def park(self) -> str:
        """What the job side leaves behind."""
        return self._expand(self.templates.park)

    @property
    def token(self) -> str:
        """Who may drain what was left behind."""
        return self._expand(self.templates.token)

    @property
    def roll(self) -> str:
        """From `msgpeek ls` to every listed job side."""
        return self._expand(self.templates.roll)

    def data(self, client: str) -> str:
        """From the job side to one client; ValueError where that is no client."""
        return self._expand(self.templates.data, _valid_client(client))

    def present(self, client: str) -> str:
        """From job sides to one `msgpeek ls`; ValueError where that is no client."""
        return self._expand(self.templates.present, _valid_client(client))


def _valid_client(client: str) -> str:
    if not CLIENT.fullmatch(client):
        raise ValueError(f"{client[:_EXCERPT]!r} is no client")
    return client
