"""Delegated proxies, as the openssl program takes them."""

import base64
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from gridmad.credential import proxy_end
from gridmad.errors import DriverError
from gridmad.execution.delegation import delegate
from tests import proxies
from tests.services.grid_pki import GridAuthority

PROXY = proxies.proxy(int(time.time()) + 1000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> GridAuthority:
    return GridAuthority(tmp_path_factory.mktemp("pki"))


def request(folder: Path) -> tuple[bytes, Path]:
    """A service's request, and its key."""
    key = folder / "service.key"
    made = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=anything"]
    done = subprocess.run(["openssl", *made, "-keyout", key], check=True, capture_output=True)
    return done.stdout, key


def test_a_delegated_proxy_is_verified_up_to_the_authority(
    authority: GridAuthority, tmp_path: Path
) -> None:
    proxy = authority.proxy(authority.user("alice"))
    wanted, key = request(tmp_path)
    chain = delegate(wanted, proxy.proxy.read_bytes())
    first, issuer, *_ = x509.load_pem_x509_certificates(chain)
    assert first.issuer == issuer.subject
    assert first.subject.rfc4514_string().endswith(issuer.subject.rfc4514_string())
    assert first.public_key() == x509.load_pem_x509_csr(wanted).public_key()
    assert first.not_valid_after_utc <= issuer.not_valid_after_utc
    assert first.not_valid_before_utc <= datetime.now(UTC)
    path = tmp_path / "chain.pem"
    path.write_bytes(chain)
    chains = ["-CAfile", str(authority.ca), "-untrusted", str(path), str(path)]
    verify = ["openssl", "verify", "-allow_proxy_certs", *chains]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert proxy_end(chain + key.read_bytes()) == proxy_end(proxy.proxy.read_bytes())
    again = delegate(wanted, chain + key.read_bytes())
    assert len(x509.load_pem_x509_certificates(again)) == 4, "a proxy of the proxy"


def test_the_version_that_arex_writes_into_a_request_is_passed_over(
    authority: GridAuthority, tmp_path: Path
) -> None:
    proxy = authority.proxy(authority.user("alice")).proxy.read_bytes()
    wanted, _ = request(tmp_path)
    der = base64.b64decode(b"".join(wanted.split(b"\n")[1:-2]))
    for head in (b"\x02\x01\x00", b"\x02\x01\x02"):
        other = b"-----BEGIN CERTIFICATE REQUEST-----\n%b-----END CERTIFICATE REQUEST-----\n" % (
            base64.encodebytes(der.replace(b"\x02\x01\x00", head, 1))
        )
        first, *_ = x509.load_pem_x509_certificates(delegate(other, proxy))
        assert first.public_key() == x509.load_pem_x509_csr(wanted).public_key()


@given(st.binary(max_size=200) | st.binary(max_size=100).map(base64.encodebytes))
def test_any_request_is_signed_or_refused(content: bytes) -> None:
    wanted = b"-----BEGIN CERTIFICATE REQUEST-----%b-----END CERTIFICATE REQUEST-----" % content
    with pytest.raises(DriverError, match="cannot be delegated"):
        delegate(wanted, PROXY)


def test_what_cannot_be_delegated(authority: GridAuthority, tmp_path: Path) -> None:
    proxy = authority.proxy(authority.user("alice")).proxy.read_bytes()
    wanted, _ = request(tmp_path)
    for one, other in ((b"", proxy), (b"garbage", proxy), (wanted, b""), (wanted, wanted)):
        with pytest.raises(DriverError, match="cannot be delegated"):
            delegate(one, other)
