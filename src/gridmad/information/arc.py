"""gw_im_mad_arc: ARC compute elements, by their GLUE 2 in LDAP or by their REST interface.

    -s ce.example.org                                   LDAP, port 2135, base o=glue
    -s https://ce.example.org/arex                      the information document of A-REX
    -s https://a.example.org/arex,https://b.example.org:8443/arex

Each compute element tells only of itself, so of REST several are read, and one that does not
answer is as it was before.  Source: see gridmad.information.glue2_json.
"""

import argparse
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gridmad.authorities import trusting
from gridmad.errors import MissingDependencyError, TransientError, UsageError
from gridmad.information import glue2_json
from gridmad.information.bdii import BdiiInformation, Joined, Source
from gridmad.information.ldap import Entry, Page, Search

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

MAX_ANSWER: Final = 64 << 20
"""Bytes of an answer; more is a fault, and must not fill the memory."""
CONNECTIONS: Final = 8
"""Compute elements that are asked at a time."""
PATH: Final = "/rest/1.0/info"

_OF_LDAP: Final = {
    "-q": "queue_filter",
    "-f": "host_filter",
    "-b": "base",
    "--glue2-base": "glue2_base",
    "-p": "port",
    "--start-tls": "start_tls",
    "--bind-dn": "bind_dn",
    "--password-file": "password_file",
    "--sasl-external": "sasl_external",
    "--certificate": "certificate",
    "--key": "key",
}
"""Options that say nothing to REST, and where they are among the parsed ones."""

Document = Mapping[str, Sequence[Entry]]


class ArcInformation(BdiiInformation):
    """ARC compute elements."""

    summary = (
        "ARC compute elements, by their GLUE 2 in LDAP (-s HOST) or by REST (-s https://HOST/arex)."
    )
    source = "ARC"
    port = 2135
    glue = "2"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare what a directory has, and what REST is shown."""
        super().add_options(parser)
        parser.add_argument(
            "--credential-file",
            metavar="FILE",
            help="a proxy to show to REST, where it does not tell everybody",
        )

    def locate(self) -> None:
        """A directory, or the URLs of REST."""
        self._urls = _rest_urls(self.options.server)
        if self._urls:
            given = [name for name, key in _OF_LDAP.items() if getattr(self.options, key)]
            if self.options.glue != self.glue:
                given.append("--glue")
            if given:
                raise UsageError(
                    f"{', '.join(given)}: for LDAP only: REST has no filters and no login by name, "
                    "and tells all there is, in GLUE 2"
                )
        elif self.options.credential_file:
            raise UsageError("--credential-file: for REST only: LDAP is shown --certificate")
        else:
            super().locate()

    def open(self) -> Source:
        """The directory, or REST."""
        if not self._urls:
            return super().open()
        try:
            import httpx  # noqa: F401 - to know that it is there
        except ImportError:
            raise MissingDependencyError("httpx", "arc") from None
        return RestInformation(self._urls, self.options)


class RestInformation:
    """The information documents of some compute elements."""

    def __init__(self, urls: Sequence[str], options: argparse.Namespace) -> None:
        self.url = ",".join(urls)
        self._urls = urls
        self._options = options
        self._known: dict[str, tuple[float, Document]] = {}
        self._failing: set[str] = set()

    def fetch(self, searches: Sequence[Search], join: Callable[[Iterator[Page]], Joined]) -> Joined:
        """What `join` makes of the entries of each class; of a compute element that does not
        answer, those that it told last, as long as values may be stale.

        Raises TransientError where of none anything is known.
        """
        import httpx

        context = trusting(self._options.ca)
        if proxy := self._options.credential_file:
            try:
                context.load_cert_chain(proxy)
            except OSError as error:
                raise TransientError(f"the proxy {proxy}: {error}") from None
        patience = self._options.timeout
        with (
            httpx.Client(verify=context, timeout=patience, trust_env=False) as client,
            ThreadPoolExecutor(CONNECTIONS) as pool,
        ):
            outcomes = pool.map(lambda url: _get(client, url, patience), self._urls)
            documents = self._documents(dict(zip(self._urls, outcomes, strict=True)))
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for document in documents:
            for object_class, entries in document.items():
                found[object_class] += entries
        return join((i, found[search.object_class]) for i, search in enumerate(searches))

    def _documents(self, outcomes: Mapping[str, Document | TransientError]) -> list[Document]:
        """What is known now of each."""
        documents = []
        problems = []
        for url, outcome in outcomes.items():
            if isinstance(outcome, TransientError):
                problems.append(f"{url}: {outcome}")
                self._complain(url, problems[-1])
                taken, known = self._known.get(url, (-float("inf"), {}))
                if time.monotonic() - taken <= self._options.staleness:
                    documents.append(known)
            else:
                self._failing.discard(url)
                self._known[url] = (time.monotonic(), outcome)
                documents.append(outcome)
        if len(problems) == len(self._urls):
            raise TransientError("; ".join(problems))
        return documents

    def _complain(self, url: str, problem: str) -> None:
        level = logging.DEBUG if url in self._failing else logging.WARNING
        log.log(level, "%s", problem)
        self._failing.add(url)


def _get(client: "httpx.Client", url: str, patience: float) -> Document | TransientError:
    """One compute element's document, or why there is none."""
    import httpx

    end = time.monotonic() + patience
    content = bytearray()
    try:
        headers = {"Accept": "application/json"}
        with client.stream("GET", f"{url}{PATH}", headers=headers) as response:
            if not response.is_success:
                text = f"answered {response.status_code} {response.reason_phrase}"
                return TransientError(text[:300])
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER:
                    return TransientError(f"answered more than {MAX_ANSWER} bytes")
                if time.monotonic() > end:
                    return TransientError("timed out")
        return glue2_json.entries(bytes(content))
    except httpx.HTTPError as error:
        return TransientError(str(error) or type(error).__name__)
    except TransientError as error:
        return error


def _rest_urls(text: str) -> tuple[str, ...]:
    """The URLs of REST; none where `text` names a directory."""
    urls = tuple(part.strip().rstrip("/") for part in text.split(","))
    if not any(url.lower().startswith(("http:", "https:")) for url in urls):
        return ()
    for url in urls:
        try:
            parts = urlsplit(url)
            is_good = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment or parts.username is not None:
            raise UsageError(f"-s {url}: write https://HOST[:PORT]/arex")
    return urls


DRIVER = ArcInformation
