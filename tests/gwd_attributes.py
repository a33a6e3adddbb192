"""Host attributes as gwd reads them, for tests to hold ours against."""

import re
from typing import Final


class GwdReader:
    """Reads attributes as gwd does: a lexer and the grammar of GridWay 5.14's
    src/host/gw_host_attr_parser.l and gw_host_update_syntax.y.

    Raises AssertionError for whatever gwd would refuse, cut or write out of bounds.
    """

    NAME = re.compile(rb"[A-Za-z][0-9A-Za-z_]*")
    INTEGER = re.compile(rb"-?[0-9]+")
    TEXT = re.compile(rb'"([^"]*)"')
    INDEX = re.compile(rb"\[([0-9]+)\]")
    QUEUES = 67
    GENERIC = 134
    INTEGERS = frozenset(
        [
            "CPU_MHZ",
            "CPU_FREE",
            "CPU_SMP",
            "NODECOUNT",
            "SIZE_MEM_MB",
            "FREE_MEM_MB",
            "SIZE_DISK_MB",
            "FREE_DISK_MB",
            "QUEUE_NODECOUNT",
            "QUEUE_FREENODECOUNT",
            "QUEUE_MAXTIME",
            "QUEUE_MAXCPUTIME",
            "QUEUE_MAXCOUNT",
            "QUEUE_MAXRUNNINGJOBS",
            "QUEUE_MAXJOBSINQUEUE",
        ]
    )
    TEXTS = frozenset(
        [
            "HOSTNAME",
            "ARCH",
            "OS_NAME",
            "OS_VERSION",
            "CPU_MODEL",
            "FORK_NAME",
            "LRMS_NAME",
            "LRMS_TYPE",
            "QUEUE_NAME",
            "QUEUE_STATUS",
            "QUEUE_DISPATCHTYPE",
            "QUEUE_PRIORITY",
        ]
    )
    WIDTHS: Final = {"HOSTNAME": 39, "ARCH": 24, "FORK_NAME": 24, "LRMS_NAME": 24, "QUEUE_NAME": 24}

    def __init__(self, info: bytes) -> None:
        self.values: dict[tuple[str, int | None], int | str] = {}
        self._info = info
        self._at = 0
        while self._at < len(info):
            name = self._take(self.NAME)[0].decode()
            index = None
            if info[self._at : self._at + 1] == b"[":
                index = int(self._take(self.INDEX)[1])
            assert info[self._at : self._at + 1] == b"="
            self._at += 1
            self._store(name, index)
            if self._at < len(info):
                assert info[self._at : self._at + 1] == b" "
                self._at += 1
        generic = [value for (name, _), value in self.values.items() if not self._is_known(name)]
        assert sum(isinstance(value, int) for value in generic) <= self.GENERIC
        assert sum(isinstance(value, str) for value in generic) <= self.GENERIC

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self._info, self._at)
        assert match, self._info[self._at : self._at + 40]
        self._at = match.end()
        return match

    def _is_known(self, name: str) -> bool:
        return name in self.INTEGERS or name in self.TEXTS

    def _store(self, name: str, index: int | None) -> None:
        value: int | str
        if self._info[self._at : self._at + 1] == b'"':
            text = self._take(self.TEXT)[1]
            assert not re.search(rb"[\x00-\x1f\x7f]", text)
            assert name not in self.INTEGERS
            value = text.decode()
            if name in self.WIDTHS:
                assert len(text) <= self.WIDTHS[name]
                assert b" " not in text
        else:
            value = int(self._take(self.INTEGER)[0])
            assert -(2**31) <= value < 2**31
            assert name not in self.TEXTS
        if name.startswith("QUEUE_"):
            assert index is not None
            assert name != "QUEUE_NAME" or ":" not in str(value)
        elif self._is_known(name):
            assert index is None
        assert index is None or index < self.QUEUES
        assert (name, index) not in self.values
        self.values[name, index] = value
