"""The launcher behind every driver's executable.

pyproject.toml names a driver in one line of [project.scripts]:

    gw_im_mad_static = "gridmad.cli.driver:information.static"

which runs the class that gridmad/information/static.py calls DRIVER.  A driver of another
package makes its executable with `launcher`:

    main = launcher("information", "their.package.module")
"""

import argparse
import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gridmad import __version__, process
from gridmad.daemon import Daemon
from gridmad.driver import Driver
from gridmad.errors import GridmadError, UsageError
from gridmad.logs import Logs, one_line
from gridmad.logs import add_options as add_log_options
from gridmad.service import Service

SERVICES = {
    "information": ("gridmad.information.service", "InformationService"),
    "execution": ("gridmad.execution.service", "ExecutionService"),
    "transfer": ("gridmad.transfer.service", "TransferService"),
}


def launcher(family: str, module: str) -> Callable[[], NoReturn]:
    """The main function of the executable that runs `module`'s DRIVER."""

    def main() -> NoReturn:
        process.clear_inheritance()
        # What was closed is None, and its descriptor is /dev/null now.
        if sys.stdout is None:
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        if sys.stderr is None:
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        name = Path(sys.argv[0]).name
        try:
            code = _run(name, family, module)
        except GridmadError as error:
            _say(f"{name}: {error}")
            code = error.exit_code
        except KeyboardInterrupt:
            code = 130
        # Threads of a hanging back end must not hold up the end.
        os._exit(code)

    return main


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)


def _run(name: str, family: str, module: str) -> int:
    service_module, service_name = SERVICES[family]
    service_class: type[Service] = getattr(importlib.import_module(service_module), service_name)
    driver_class: type[Driver] = importlib.import_module(module).DRIVER
    parser = _parser(name, service_class, driver_class)
    try:
        options = parser.parse_args(process.arguments(sys.argv[1:]))
    except SystemExit:  # --help or --version
        try:
            sys.stdout.flush()
        except OSError as error:
            _say(f"{name}: stdout: {error.strerror}")
            return os.EX_IOERR
        return 0
    logs = Logs(options, sys.stderr)
    try:
        process.set_up_environment(sys.argv[0], os.environ)
        process.lower_priority(os.environ)
        service = service_class(driver_class(options))
        return asyncio.new_event_loop().run_until_complete(_serve(service))
    finally:
        logs.close()


async def _serve(service: Service) -> int:
    return await Daemon(service).run()


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help tells the options)")


def _parser(
    name: str, service_class: type[Service], driver_class: type[Driver]
) -> argparse.ArgumentParser:
    summary = driver_class.summary.removesuffix(".")
    parser = _Parser(
        prog=name,
        description=f"{summary[:1].upper()}{summary[1:]}.  A middleware access driver: GridWay's "
        "gwd starts it and speaks with it on stdin and stdout; at a prompt, type INIT - - - to "
        "begin.",
        epilog="Exit codes: 0 after FINALIZE or end of file, 2 for a wrong command line, 70 when "
        "the back end hung for good, 74 when stdout cannot be written, 128+n for signal n.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{name} (gridmad) {__version__}")
    driver_class.add_options(parser)
    service_class.add_options(parser)
    add_log_options(parser)
    return parser


class _Family:
    """`information.static` is the main function of gridmad/information/static.py."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, module: str) -> Callable[[], NoReturn]:
        return launcher(self._name, f"gridmad.{self._name}.{module}")


information = _Family("information")
execution = _Family("execution")
transfer = _Family("transfer")
