"""A private certification authority and what it signs, made with the openssl program."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PKCS12_PASSWORD = "changeit"

EXTENSIONS = """\
subjectAltName={names}
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def missing() -> str | None:
    """What is not installed; None where all is there."""
    if shutil.which("openssl") is None:
        return "openssl is not installed (apt-get install openssl)"
    return None


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, in PEM and as PKCS 12 (for Java)."""

    certificate: Path
    key: Path
    pkcs12: Path


class Authority:
    """Makes certificates in `folder`; `ca` is what a client verifies them with."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        if not self.ca.exists():
            self._openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-days", "30", "-subj", f"/CN={name}"),
                *("-addext", "basicConstraints=critical,CA:TRUE"),
                *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
                *("-keyout", str(self._key), "-out", str(self.ca)),
            )

    def issue(
        self, name: str, alternatives: Sequence[str] = ("DNS:localhost", "IP:127.0.0.1")
    ) -> Certificate:
        """A certificate with the common name `name` for hosts named by `alternatives`."""
        stem = self.folder / name
        made = Certificate(
            stem.with_suffix(".pem"), stem.with_suffix(".key"), stem.with_suffix(".p12")
        )
        if made.pkcs12.exists():
            return made
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(EXTENSIONS.format(names=",".join(alternatives)))
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "30", "-extfile", str(extensions)),
            *("-out", str(made.certificate)),
        )
        self._openssl(
            *("pkcs12", "-export", "-in", str(made.certificate), "-inkey", str(made.key)),
            *("-certfile", str(self.ca), "-name", name, "-passout", f"pass:{PKCS12_PASSWORD}"),
            *("-out", str(made.pkcs12)),
        )
        return made

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
