"""Secrets: which ones a job's environment holds, and their masking before a byte leaves.

Masked are literals that are known and what `--redact PATTERN` matches, by as many asterisks
as they have bytes: offsets stay those of the job's own output (PROTOCOL.md, section 6).
"""

import logging
import re
from collections.abc import Iterable, Mapping

from gridmad._screen import MAX_SECRET, MAX_SECRETS, Masker
from gridmad.errors import UsageError

LOGGER = logging.getLogger(__name__)

MIN_SECRET = 8
"""Bytes of a value of the environment that is taken for a secret: short ones, such as `true`,
would mask words all over the output."""

MIN_PASSWORD = 4
"""Bytes of the broker's password from which on it is masked: it is a secret for certain."""

MAX_LINE = 65_536
"""Bytes of an unfinished line that are held back for the patterns."""

# A name is made of words; TOKENIZERS, SECRETARY and AUTHOR are others.  BEARER_TOKEN_FILE,
# SSH_AUTH_SOCK and their like tell where something is, not what.
_NAME = re.compile(
    r"(?:PASSWORD|PASSWD|PASSCODE|PASSPHRASE|SECRET|TOKEN|CREDENTIAL"
    r"|(?:API|ACCESS|PRIVATE|SIGNING|ENCRYPTION)_?KEY"
    r"|(?<![A-Z])PASS|_PWD|(?<![A-Z])(?:O?AUTH\d?|AUTHORIZATION))S?(?![A-Z])",
    re.IGNORECASE,
)
_PLACE = re.compile(
    r"_(?:FILE|PATH|DIR|DIRECTORY|SOCK|SOCKET|UR[IL]|ENDPOINT|HOST|PORT|TYPE|METHOD|MECHANISM"
    r"|PROVIDER|ALGORITHM|EXPIRY|EXPIRES|LIFETIME|TIMEOUT|TTL)S?$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:([^\s/@]+)@")

_LINE = re.compile(rb"[^\r\n]+")


def known_secrets(
    environment: Mapping[str, str], password: str | None = None, key: bytes | None = None
) -> list[bytes]:
    """The literals to mask: of the environment by its names, the broker's password, the key.

    Also the password within any URL of the environment, and the key in hexadecimal digits.
    At most MAX_SECRETS; what was left out, or cut to MAX_SECRET bytes, is told in the log
    by its number or name.
    """
    secrets: dict[bytes, None] = {}
    if password is not None and len(password.encode("utf-8", "surrogateescape")) >= MIN_PASSWORD:
        secrets[password.encode("utf-8", "surrogateescape")] = None
    if key is not None:
        secrets[key] = None
        secrets[key.hex().encode()] = None
    for name, text in environment.items():
        value = text.encode("utf-8", "surrogateescape").strip()
        found = [match[1] for match in _URL_PASSWORD.finditer(value)]
        if _NAME.search(name) and not _PLACE.search(name):
            found.append(value)
        for secret in found:
            # A row of one character, such as a line, is nobody's secret.
            if len(secret) >= MIN_SECRET and len(set(secret)) > 1:
                if len(secret) > MAX_SECRET:
                    LOGGER.warning("only the first %d bytes of %s are masked", MAX_SECRET, name)
                secrets[secret[:MAX_SECRET]] = None
    if len(secrets) > MAX_SECRETS:
        LOGGER.warning(
            "the environment holds %d secrets: only %d are masked", len(secrets), MAX_SECRETS
        )
    return list(secrets)[:MAX_SECRETS]


def compile_patterns(patterns: Iterable[str | bytes]) -> list[re.Pattern[bytes]]:
    """The regular expressions of `--redact`, over bytes.  UsageError where one is none."""
    compiled = []
    for pattern in patterns:
        expression = pattern.encode() if isinstance(pattern, str) else pattern
        try:
            compiled.append(re.compile(expression))
        except (re.error, OverflowError, RecursionError) as error:
            shown = expression.decode("utf-8", "backslashreplace")
            raise UsageError(f"--redact {shown!r}: {error}") from None
    return compiled


class Redactor:
    """Masks one source: feed it the output in pieces, send what it returns.

    With patterns an unfinished line is held back until it ends in a newline or a carriage
    return, grows beyond MAX_LINE, or the source ends: it may hold the beginning of a match.
    Beyond MAX_LINE a line is searched in parts of that length, and a match over an edge is
    missed.  With secrets alone only what may begin one is held back.

    Both are searched in the job's own bytes: neither hides anything from the other.
    """

    def __init__(
        self, secrets: Iterable[bytes] = (), patterns: Iterable[re.Pattern[bytes]] = ()
    ) -> None:
        """Take literals as `known_secrets` gives them and expressions over bytes."""
        literals = list(secrets)
        self._masker = Masker(literals) if literals else None
        self._patterns = tuple(patterns)
        self._line = bytearray()  # the unfinished line, as the job wrote it
        self._masked = bytearray()  # what has not left, its secrets masked
        self._searched = 0  # bytes of it whose lines were searched
        self._spans: list[tuple[int, int]] = []  # matches in it

    @property
    def pending(self) -> int:
        """Bytes held back."""
        held = 0 if self._masker is None else self._masker.pending
        return held + len(self._masked)

    def feed(self, data: bytes) -> bytes:
        """What may leave now of what was held back and `data`."""
        masked = data if self._masker is None else self._masker.feed(data)
        if not self._patterns:
            return masked
        self._masked += masked
        self._line += data
        whole = 1 + max(self._line.rfind(b"\n"), self._line.rfind(b"\r"))
        rest = len(self._line) - whole
        self._search(whole + rest // MAX_LINE * MAX_LINE)
        return self._leave()

    def flush(self) -> bytes:
        """The end of the source: everything that was held back."""
        masked = b"" if self._masker is None else self._masker.flush()
        if not self._patterns:
            return masked
        self._masked += masked
        self._search(len(self._line))
        return self._leave()

    def _search(self, size: int) -> None:
        """Note what matches in the first `size` bytes of the lines, and forget these."""
        if not size:
            return
        block = bytes(memoryview(self._line)[:size])
        del self._line[:size]
        for line in _LINE.finditer(block):
            text, start = line[0], self._searched + line.start()
            for at in range(0, len(text), MAX_LINE):
                part = text[at : at + MAX_LINE]
                for pattern in self._patterns:
                    for match in pattern.finditer(part):
                        if match[0]:
                            self._spans.append(
                                (start + at + match.start(), start + at + match.end())
                            )
        self._searched += size

    def _leave(self) -> bytes:
        """What was searched for patterns and for secrets, with all of it masked."""
        size = min(self._searched, len(self._masked))
        leaving = self._masked[:size]
        del self._masked[:size]
        self._searched -= size
        spans, self._spans = self._spans, []
        for start, end in spans:
            if start < size:
                leaving[start : min(end, size)] = b"*" * (min(end, size) - start)
            if end > size:
                self._spans.append((max(start - size, 0), end - size))
        return bytes(leaving)


def new_redactor(
    secrets: Iterable[bytes], patterns: Iterable[re.Pattern[bytes]]
) -> Redactor | None:
    """The filter of one source, or None where there is nothing to mask and none is needed."""
    literals, expressions = list(secrets), list(patterns)
    return Redactor(literals, expressions) if literals or expressions else None
