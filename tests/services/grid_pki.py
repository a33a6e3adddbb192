"""A private grid: an authority as Globus trusts it, a host, users, and their proxies.

All of it is made with the openssl program.  Proxies are those of RFC 3820.  `environment`
is what a client or server of the Globus libraries needs to be a user of this grid.
"""

import itertools
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services import pki

missing = pki.missing

ORGANIZATION = "gridmad test"
SIGNING_POLICY = """\
access_id_CA  X509  '/O={organization}/CN=test CA'
pos_rights    globus  CA:sign
cond_subjects globus  '"/O={organization}/*"'
"""
HOST_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
subjectAltName={names}
"""
USER_EXTENSIONS = """\
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=clientAuth
"""
PROXY_EXTENSIONS = """\
proxyCertInfo=critical,language:id-ppl-inheritAll
keyUsage=critical,digitalSignature,keyEncipherment
"""
_serials = itertools.count(int.from_bytes(os.urandom(4), "big") + 1)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, both PEM; of a proxy they are one file, with its chain."""

    subject: str
    """As Globus writes names: `/O=gridmad test/CN=alice`."""
    certificate: Path
    key: Path

    @property
    def proxy(self) -> Path:
        """Of a proxy: its file."""
        assert self.certificate == self.key
        return self.certificate


class GridAuthority:
    """Makes certificates in `folder`, which is for this alone.

    `certificates` is the folder of trusted authorities, as X509_CERT_DIR names it.  Files of
    keys are 0600: a server that runs as another user needs copies of its own.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o755, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.pem"
        self.certificates = folder / "certificates"
        self._key = folder / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", f"/O={ORGANIZATION}/CN=test CA"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self._key), "-out", str(self.ca)),
        )
        self.certificates.mkdir()
        for kind in ("-subject_hash", "-subject_hash_old"):
            name = _openssl("x509", "-in", str(self.ca), "-noout", kind).strip()
            (self.certificates / f"{name}.0").write_bytes(self.ca.read_bytes())
            policy = self.certificates / f"{name}.signing_policy"
            policy.write_text(SIGNING_POLICY.format(organization=ORGANIZATION))

    def host(
        self, name: str = "localhost", alternatives: Sequence[str] = ("IP:127.0.0.1",)
    ) -> Identity:
        """A host; `alternatives` are further names (`DNS:...`, `IP:...`)."""
        names = ",".join((f"DNS:{name}", *alternatives))
        return self._issue(name, HOST_EXTENSIONS.format(names=names))

    def user(self, name: str) -> Identity:
        """A user with the common name `name`."""
        return self._issue(name, USER_EXTENSIONS)

    def proxy(self, user: Identity, name: str = "proxy", *, days: int = 1) -> Identity:
        """A proxy of a user, in the file `name`; of less than no days it has expired."""
        serial = str(next(_serials))
        path = self.folder / name
        key = path.with_suffix(".key")
        _sign(
            *(f"{user.subject}/CN={serial}", PROXY_EXTENSIONS, path, key),
            *("-CA", str(user.certificate), "-CAkey", str(user.key)),
            *("-set_serial", serial, "-days", str(days)),
        )
        chain = (path, key, user.certificate)
        replace(path, b"".join(part.read_bytes() for part in chain))
        key.unlink()
        return Identity(f"{user.subject}/CN={serial}", path, path)

    def grid_map(self, users: Mapping[str, str]) -> Path:
        """A grid-mapfile: local accounts by the subjects of users."""
        path = self.folder / "grid-mapfile"
        replace(path, "".join(f'"{name}" {to}\n' for name, to in users.items()).encode())
        return path

    def environment(self, identity: Identity) -> dict[str, str]:
        """What a Globus program needs to act as `identity`."""
        name = {"X509_CERT_DIR": str(self.certificates)}
        if identity.certificate == identity.key:
            return {**name, "X509_USER_PROXY": str(identity.certificate)}
        return {
            **name,
            "X509_USER_CERT": str(identity.certificate),
            "X509_USER_KEY": str(identity.key),
        }

    def _issue(self, name: str, extensions: str) -> Identity:
        subject = f"/O={ORGANIZATION}/CN={name}"
        path = self.folder / name
        made = Identity(subject, path.with_suffix(".pem"), path.with_suffix(".key"))
        if not made.certificate.exists():
            _sign(
                *(subject, extensions, made.certificate, made.key),
                *("-CA", str(self.ca), "-CAkey", str(self._key)),
                *("-set_serial", str(next(_serials)), "-days", "30"),
            )
        return made


def replace(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, whole from the moment on that it is there."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    part.replace(path)


def _sign(subject: str, extensions: str, certificate: Path, key: Path, *signer: str) -> None:
    request, wanted = certificate.with_suffix(".csr"), certificate.with_suffix(".ext")
    wanted.write_text(extensions)
    # The older PEM form of a key is what all of Globus reads.
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject),
        *("-keyout", str(key), "-out", str(request)),
    )
    _openssl("rsa", "-in", str(key), "-traditional", "-out", str(key))
    _openssl(
        *("x509", "-req", "-in", str(request), "-extfile", str(wanted), "-sha256"),
        *(*signer, "-out", str(certificate)),
    )
    request.unlink()
    wanted.unlink()


def _openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
