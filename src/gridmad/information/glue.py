"""What both versions of GLUE have in common: values, rules of access, and a host as published.

Schemas have numbers that mean "nobody set this" and "nobody knows", and both write who may use
a queue as rules, `VO:biomed` or `VOMS:/biomed/Role=production`.  No I/O happens here.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, cast

from gridmad._glue import (
    decoded,
    number_of,
    numbers_of,
    quantity_of,
    state_of,
    text_of,
    texts_of,
    words_of,
)
from gridmad.information.model import Attribute, HostAttributes

__all__ = [
    "ROOMY",
    "UNKNOWN",
    "UNSET",
    "Decoded",
    "Known",
    "PublishedHost",
    "access",
    "decoded",
    "host_name",
    "lets_in",
    "merge",
    "number_of",
    "numbers_of",
    "quantity_of",
    "state",
    "state_of",
    "text_of",
    "texts_of",
    "vo_of",
    "words_of",
]

UNSET: Final = 999_999_999
"""A limit that nobody set."""
UNKNOWN: Final = 444_444
"""A state that nobody knows."""
ROOMY: Final = 60
"""Queues up to which there is room for all generic attributes: gwd takes 134 integers and
134 texts of a host, and each queue brings two of both."""

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?", re.ASCII)
_MAX_HOST: Final = 255
"""Characters of a name (RFC 1035)."""
_EVERYBODY: Final = frozenset({"all", "*"})
_TEXTS: Final = frozenset(
    {"HOSTNAME", "ARCH", "LRMS_NAME", "LRMS_TYPE", "OS_NAME", "OS_VERSION", "CPU_MODEL"}
    | {"QUEUE_STATUS", "QUEUE_PRIORITY", "QUEUE_ACCESS"}
)
_DISKS: Final = ("SIZE_DISK_MB", "FREE_DISK_MB")

Known = Attribute | None
"""The value of an attribute; None is what nobody told."""


@dataclass
class PublishedHost:
    """A host as one version of GLUE describes it, under GridWay's names.

    `queues` are sorted by their names, and `more` come after them.
    """

    host: dict[str, Known]
    queues: dict[str, dict[str, Known]]
    more: dict[str, Attribute] = field(default_factory=dict)

    def attributes(self) -> HostAttributes:
        """What gwd gets: 0 or "" is what nobody told.  Only for who is the last to look at it."""
        more = self.more
        if len(self.queues) > ROOMY:
            more = {name: more[name] for name in _DISKS if name in more}
        return HostAttributes(_told(self.host), [_told(q) for q in self.queues.values()], more)


class Decoded(NamedTuple):
    """Hosts by name, sorted; and what could not be used."""

    hosts: dict[str, PublishedHost]
    problems: list[str]


def merge(decoded: Sequence[Decoded]) -> Decoded:
    """Every host once: what the first does not tell of one is as the next tells it."""
    hosts = dict(decoded[0].hosts)
    for other in decoded[1:]:
        for name, host in other.hosts.items():
            known = hosts.get(name)
            hosts[name] = host if known is None else _joined(known, host)
    problems = [problem for part in decoded for problem in part.problems]
    return Decoded({name: hosts[name] for name in sorted(hosts)}, problems)


def _joined(first: PublishedHost, second: PublishedHost) -> PublishedHost:
    queues = {
        name: _filled(first.queues.get(name, {}), second.queues.get(name, {}))
        for name in sorted({*first.queues, *second.queues})
    }
    return PublishedHost(_filled(first.host, second.host), queues, second.more | first.more)


def _filled(first: Mapping[str, Known], second: Mapping[str, Known]) -> dict[str, Known]:
    filled = {**second, **first}
    for name, value in second.items():
        if filled[name] is None:
            filled[name] = value
    # In the order of the first: gwd's readers are used to it.
    return {name: filled[name] for name in {**first, **second}}


def _told(values: dict[str, Known]) -> dict[str, Attribute]:
    """The same dictionary, for there are many, with something in it for what nobody told."""
    told = cast(dict[str, Attribute], values)
    if None in values.values():
        told.update((name, _default(name)) for name, value in values.items() if value is None)
    return told


def _default(name: str) -> Attribute:
    return "" if name in _TEXTS else "0" if name == "QUEUE_JOBWAIT" else 0


# ---------------------------------------------------------------- values


def state(number: int | None) -> int | None:
    """An integer of which 0 is something that one can know."""
    return None if number == UNKNOWN else number


def host_name(text: str) -> str | None:
    """A name of a host in lower case, None for what is none."""
    return _host_name(text) if len(text) <= _MAX_HOST else None


@lru_cache(1 << 12)
def _host_name(text: str) -> str | None:
    name = text.strip().rstrip(".").lower()
    return name if _HOST.fullmatch(name) else None


# ---------------------------------------------------------------- access


def vo_of(rule: str) -> str:
    """The VO that a rule lets in, "" where it lets none in."""
    kind, _, subject = rule.partition(":")
    if kind.upper() == "VOMS":
        return subject.strip("/").partition("/")[0]
    return subject if kind.upper() == "VO" else ""


def lets_in(rules: Iterable[str], vos: Collection[str]) -> bool:
    """Whether some rule lets one of `vos` (in lower case) in."""
    return any(vo_of(rule).lower() in vos or rule.lower() in _EVERYBODY for rule in rules)


def access(rules: Iterable[str], vos: Collection[str] = ()) -> str:
    """`:x:` for each VO that some rule lets in, and `:/x/Role=y:` for each VOMS rule; of `vos`
    (in lower case) only, where some are named.
    """
    rules = [rule for rule in rules if not vos or vo_of(rule).lower() in vos]
    fqans = [rule.partition(":")[2] for rule in rules if rule[:5].upper() == "VOMS:"]
    tokens = dict.fromkeys([*map(vo_of, rules), *fqans])
    return "".join(f":{token}:" for token in tokens if token)
