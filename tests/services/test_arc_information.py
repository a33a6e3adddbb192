"""gw_im_mad_arc on a real A-REX, by its REST interface."""

import argparse
import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence

import pytest

from gridmad.errors import TransientError, UsageError
from gridmad.information.arc import DRIVER, ArcInformation
from tests.information import Told, read_host
from tests.services import arc
from tests.services.arc import Arc
from tests.services.ports import reserve_port

PATIENCE = 60.0
"""Seconds that A-REX has to tell anything, on a busy machine."""


def make(*arguments: str, staleness: float = 1800.0) -> ArcInformation:
    parser = argparse.ArgumentParser()
    DRIVER.add_options(parser)
    options = parser.parse_args(arguments)
    options.staleness = staleness
    return DRIVER(options)


async def told(driver: ArcInformation) -> dict[str, Told]:
    """What DISCOVER and MONITOR answer, as soon as A-REX tells something."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = driver.discover()
            hosts: Sequence[str] = await found if isinstance(found, Awaitable) else found
            break
        except TransientError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)
    values = driver.monitor(hosts)
    assert not isinstance(values, Awaitable)
    return {host: read_host(value) for host, value in values.items()}


@pytest.fixture
def element() -> Arc:
    return arc.shared()


def options_of(element: Arc, *urls: str) -> list[str]:
    servers = ",".join([f"https://{element.endpoint}/arex", *urls])
    return ["-s", servers, "--ca", str(element.authority.certificates)]


@pytest.mark.grid
def test_what_a_compute_element_tells_of_itself(element: Arc) -> None:
    async def test() -> None:
        driver = make(*options_of(element))
        await driver.start()
        try:
            (attributes,) = (await told(driver)).values()
        finally:
            await driver.stop()
        assert attributes.dropped == ()
        host = attributes.host
        assert (host["HOSTNAME"], host["LRMS_NAME"]) == ("localhost", "nordugrid-fork")
        assert int(host["NODECOUNT"]) > 0
        assert host["ARCH"]
        assert attributes.host["SITE_NAME"] == "test"
        (queue,) = attributes.queues
        assert (queue["QUEUE_NAME"], queue["QUEUE_STATUS"]) == ("fork", "Production")

    asyncio.run(test())


@pytest.mark.grid
def test_one_that_does_not_answer_is_as_it_was(
    element: Arc, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def test() -> None:
        dead = f"https://localhost:{reserve_port()}/arex"
        driver = make(*options_of(element, dead))
        await driver.start()
        try:
            assert list(await told(driver)) == ["localhost"]
            assert caplog.text.count(f"{dead}: ") == 1
            with element.rest_stopped():
                with pytest.raises(TransientError) as caught:
                    await asyncio.to_thread(driver.read)
                assert element.endpoint in str(caught.value)
                # gwd is told what was true before.
                assert list(await told(driver)) == ["localhost"]
            assert list(await asyncio.to_thread(driver.read)) == ["localhost"]
        finally:
            await driver.stop()

    asyncio.run(test())


@pytest.mark.grid
def test_a_server_that_nobody_trusts(element: Arc) -> None:
    async def test() -> None:
        driver = make("-s", f"https://{element.endpoint}/arex")
        await driver.start()
        try:
            with pytest.raises(TransientError, match="CERTIFICATE_VERIFY_FAILED"):
                await asyncio.to_thread(driver.read)
        finally:
            await driver.stop()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "http://a.org/arex"], "-s http://a.org/arex: write https://HOST[:PORT]/arex"),
        (["-s", "https://a.org/arex,b.org"], "-s b.org: write https://HOST[:PORT]/arex"),
        (["-s", "https://u@a.org/arex"], "write https://HOST[:PORT]/arex"),
        (["-s", "https://a.org:x/"], "write https://HOST[:PORT]/arex"),
        (["-s", "https://a.org", "-q", "(GlueCEName=x)"], "-q: for LDAP only"),
        (["-s", "https://a.org", "--glue", "1", "-f", "(GlueCEName=x)"], "-f, --glue: for LDAP"),
        (["-s", "https://a.org", "-p", "443", "--start-tls"], "-p, --start-tls: for LDAP only"),
        (["-s", "a.org", "--credential-file", "/proxy"], "--credential-file: for REST only"),
        (["-s", "a.org", "-q", "(GlueCEInfoDataDir=x)"], "GLUE 2 has nothing for"),
    ],
)
def test_a_wrong_command_line_is_told_at_once(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(*arguments)
    assert said in str(caught.value)


def test_without_a_url_it_is_a_directory_with_arcs_defaults() -> None:
    driver = make("-s", "ce.example.org")
    assert driver.open().url == "ldap://ce.example.org:2135/o=glue"
