"""Information requests: DISCOVER and MONITOR, from a driver's values or the last good ones."""

import argparse
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence

from gridmad import wire
from gridmad.errors import DriverError, TransientError, UnknownHostError
from gridmad.information.driver import InformationDriver
from gridmad.information.model import Host
from gridmad.options import seconds
from gridmad.service import Service, message, then
from gridmad.wire import Request, column

log = logging.getLogger(__name__)


class InformationService(Service):
    """Answers from the driver, and within the staleness budget from what it said before.

    gwd takes a FAILURE for MONITOR as the end of all it knew of the host until the next
    DISCOVER, so FAILURE is kept for hosts that are not there.
    """

    grammar = wire.INFORMATION
    gathered = frozenset({"DISCOVER", "MONITOR"})
    deadlines = {"DISCOVER": 120.0, "MONITOR": 60.0}  # noqa: RUF012 - overrides a ClassVar

    def __init__(self, driver: InformationDriver) -> None:
        super().__init__(driver)
        self._information = driver
        self._staleness: float = driver.options.staleness
        self._good: dict[str, tuple[bytes, float]] = {}
        self._hosts: list[str] = []
        self._hosts_known_at = -float("inf")
        self._next_host = 0
        self._reported: set[tuple[str, str]] = set()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the staleness budget."""
        super().add_options(parser)
        parser.add_argument(
            "--staleness",
            metavar="SECONDS",
            type=seconds,
            default=1800.0,
            help="how long the last good values are served while their source fails "
            "(default: %(default)g)",
        )

    def serve(self, operation: str, requests: list[Request]) -> Awaitable[None] | None:
        """Serve DISCOVER or MONITOR requests."""
        if operation == "DISCOVER":
            return then(
                self._information.discover(), lambda hosts: self._discovered(requests, hosts)
            )
        names = column(requests, 2)
        return then(
            self._information.monitor(list(dict.fromkeys(names))),
            lambda values: self._monitored(requests, names, values),
        )

    def fallback(self, operation: str, request: Request, error: Exception) -> bytes:
        """The last good values, where the failure does not tell that the host is gone."""
        if operation == "MONITOR":
            return self._last_good(request[2], error)
        if self._is_fresh(self._hosts_known_at) and self._hosts:
            log.warning("DISCOVER answers the hosts known before: %s", message(error))
            return self._host_list()
        return wire.failure(message(error))

    def _discovered(self, requests: list[Request], hosts: Sequence[str]) -> None:
        usable = []
        for host in dict.fromkeys(hosts):
            if len(host.encode("utf-8", "replace")) > wire.MAX_HOST_NAME or not _is_word(host):
                self._report_once(
                    host,
                    f"host {host!r} left out: gwd takes names of at most {wire.MAX_HOST_NAME} "
                    "bytes without blanks",
                )
            else:
                usable.append(host)
        self._hosts = usable
        self._hosts_known_at = time.monotonic() - self._information.age()
        for request in requests:
            self.answer([request], [self._host_list()])

    def _host_list(self) -> bytes:
        """As many hosts as fit one line; the next DISCOVER goes on where this one ended.

        gwd only ever adds hosts, so after some turns it knows them all.
        """
        names = [host.encode() for host in self._hosts]
        size = sum(map(len, names)) + len(names)
        if size <= wire.MAX_INFO:
            return b" ".join([b"SUCCESS", *names])
        start = self._next_host % len(names)
        chosen = []
        room = wire.MAX_INFO
        for name in names[start:] + names[:start]:
            room -= len(name) + 1
            if room < 0:
                break
            chosen.append(name)
        self._next_host = (start + len(chosen)) % len(names)
        log.warning(
            "%d hosts do not fit one DISCOVER answer: %d of them told now, the next at the "
            "following DISCOVERs",
            len(names),
            len(chosen),
        )
        return b"SUCCESS " + b" ".join(chosen)

    def _monitored(
        self,
        requests: list[Request],
        names: list[str],
        values: Mapping[str, Host | DriverError],
    ) -> None:
        payloads: dict[str, bytes] = {}
        then_true = time.monotonic() - self._information.age()
        for host in dict.fromkeys(names):
            value = values.get(host)
            if value is not None and not isinstance(value, DriverError):
                payloads[host] = value.payload
                self._good[host] = (value.payload, then_true)
                for text in value.dropped:
                    self._report_once(host, f"host {host}: attribute left out: {text}")
            else:
                payloads[host] = self._last_good(host, value or UnknownHostError(host))
        self.answer(requests, [payloads[name] for name in names])

    def _last_good(self, host: str, error: Exception) -> bytes:
        payload, when = self._good.get(host, (b"", -float("inf")))
        is_gone = isinstance(error, DriverError) and not isinstance(error, TransientError)
        if not is_gone and self._is_fresh(when):
            log.warning("host %s: last good values served: %s", host, message(error))
            return payload
        self._good.pop(host, None)
        return wire.failure(message(error))

    def _is_fresh(self, when: float) -> bool:
        return time.monotonic() - when <= self._staleness

    def _report_once(self, host: str, text: str) -> None:
        if (host, text) not in self._reported:
            if len(self._reported) >= 100_000:
                self._reported.clear()
            self._reported.add((host, text))
            log.warning("%s", text)


def _is_word(host: str) -> bool:
    return bool(host) and all(33 <= ord(character) < 127 for character in host)
