"""The environment of a job, before its description adds to it."""

import os
import pwd
import re
from collections.abc import Mapping
from typing import Final

INHERITED: Final = re.compile(
    r"TMPDIR|TZ|LANG|LC_[A-Z]+|GLOBUS_LOCATION|X509_USER_PROXY|X509_CERT_DIR"
)
"""Variables of the driver that a job gets as well.

X509_USER_PROXY is the user's own delegated proxy: jobs of a grid move their files with it.
All else (GW_*, LD_LIBRARY_PATH, PYTHON*) is gwd's and the driver's own business.
"""

_SHELL: Final = "/bin/sh"
_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def inherited(own: Mapping[str, str]) -> dict[str, str]:
    """What INHERITED names of the driver's `own`."""
    return {name: value for name, value in own.items() if INHERITED.fullmatch(name)}


def on_another_machine(own: Mapping[str, str]) -> dict[str, str]:
    """What of the driver's `own` means the same there: TMPDIR does not."""
    return {name: value for name, value in own.items() if name != "TMPDIR"}


def job_environment(own: Mapping[str, str]) -> dict[str, str]:
    """HOME, USER, LOGNAME, SHELL and PATH, and what INHERITED names of the driver's `own`."""
    home = os.path.expanduser("~")  # noqa: PTH111 - $HOME first, as the transfer drivers
    shell = _SHELL
    name = own.get("LOGNAME") or own.get("USER") or str(os.getuid())
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        pass
    else:
        shell = user.pw_shell or shell
        name = user.pw_name
    path = own.get("PATH") or _DEFAULT_PATH
    return inherited(own) | {
        "HOME": home,
        "USER": name,
        "LOGNAME": name,
        "SHELL": shell,
        "PATH": path,
    }
