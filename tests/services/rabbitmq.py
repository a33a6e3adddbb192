"""A private RabbitMQ with its STOMP plugin, of Debian's package rabbitmq-server."""

import base64
import hashlib
import json
import secrets
import time
from pathlib import Path

from tests.services import pki
from tests.services.ports import reserve_port
from tests.services.stomp_server import (
    LIMITED_LOGIN,
    LIMITED_PASSWORD,
    LOGIN,
    PASSWORD,
    StompServer,
    write_private,
)

# The one in /usr/sbin insists on a user of its own.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

CONFIGURATION = """\
listeners.tcp.default = {address}:{amqp_port}
loopback_users = none
load_definitions = {folder}/definitions.json
log.console = true
log.console.level = info
log.file = false
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
collect_statistics_interval = 30000
num_acceptors.tcp = 2
num_acceptors.ssl = 2
stomp.listeners.tcp.1 = {address}:{stomp_port}
stomp.listeners.ssl.1 = {address}:{tls_port}
stomp.num_acceptors.tcp = 2
stomp.num_acceptors.ssl = 2
stomp.ssl_cert_login = true
ssl_cert_login_from = common_name
ssl_options.cacertfile = {ca}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
"""


KEEP_TIME = 60.0
"""Seconds for a queue to be written down."""


def missing() -> str | None:
    """What is not installed of what a broker needs; None where all is there."""
    if not PROGRAM.exists():
        return "rabbitmq-server is not installed (apt-get install rabbitmq-server)"
    return pki.missing()


class RabbitMQ(StompServer):
    """One broker.  A client certificate for `client` is a login too."""

    name = "rabbitmq"

    def _configure(self) -> None:
        self._amqp_port = reserve_port(self.address)
        self._epmd_port = reserve_port()
        self._distribution_port = reserve_port()
        write_private(
            self.folder / "rabbitmq.conf",
            CONFIGURATION.format(
                address=self.address,
                amqp_port=self._amqp_port,
                stomp_port=self.stomp_port,
                tls_port=self.tls_port,
                folder=self.folder,
                ca=self.ca,
                certificate=self.certificate.certificate,
                key=self.certificate.key,
            ),
        )
        write_private(self.folder / "definitions.json", json.dumps(_definitions()))
        write_private(self.folder / "enabled_plugins", "[rabbitmq_stomp].\n")
        write_private(self.folder / ".erlang.cookie", secrets.token_hex(16))
        (self.folder / ".erlang.cookie").chmod(0o400)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        folder = str(self.folder)
        return [str(PROGRAM)], {
            "HOME": folder,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"t{self.stomp_port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/config",
            "RABBITMQ_SCHEMA_DIR": f"{folder}/schema",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/beam.pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2"
            ),
        }

    def wait_until_kept(self, queue: str) -> None:
        """Wait until it is written down that there is this queue, which takes up to two seconds:
        the messages are on the disk much earlier, and are lost with the queue.
        """
        node = self.folder / "mnesia" / f"t{self.stomp_port}@localhost"
        end = time.monotonic() + KEEP_TIME
        while not any(
            _keeps(path, queue.encode())
            for path in (*node.glob("*.LOG"), *node.glob("rabbit_durable_queue.DC?"))
        ):
            assert time.monotonic() < end, f"RabbitMQ does not write down its queue {queue}"
            time.sleep(0.05)


def _keeps(path: Path, name: bytes) -> bool:
    """Whether a file of Mnesia has a name for good: what its log holds counts from when the log
    says that it is committed.
    """
    try:
        _, found, rest = path.read_bytes().rpartition(name)
    except FileNotFoundError:  # another one has taken its place
        return False
    return bool(found) and (path.suffix != ".LOG" or b"committed" in rest)


def _definitions() -> dict[str, object]:
    # Streams of msgpeek, and what RabbitMQ names by itself for a subscription of a topic.
    limited = r"^(data\.|control\.|allowed\.|amq\.topic$|stomp-subscription-).*"
    rights = {LOGIN: ".*", "client": ".*", LIMITED_LOGIN: limited}
    passwords = {
        LOGIN: PASSWORD,
        LIMITED_LOGIN: LIMITED_PASSWORD,
        "client": secrets.token_hex(),
    }
    return {
        "users": [
            {
                "name": name,
                "password_hash": _hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name, password in passwords.items()
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [
            {"user": name, "vhost": "/", "configure": right, "write": right, "read": right}
            for name, right in rights.items()
        ],
    }


def _hash(password: str) -> str:
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
