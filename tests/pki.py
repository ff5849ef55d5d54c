"""Authorities and certificates for tests, made on the spot."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmesh.certificates import GATEWAY
from llmesh.home import write_atomically

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str = "own") -> tuple[Path, Path]:
        """Write both, or replace both one after the other; their paths."""
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            write_atomically(path, content)
        return paths


class Authority:
    """Issues certificates for names: DNS names, IP addresses, URIs."""

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.pem = _pem(
            _builder(self._name, self._name, self._key, DAY).add_extension(constraints, critical=True), self._key
        )

    def issue(self, *names: str, lasts: timedelta = DAY) -> Issued:
        """A certificate that ends so far from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name([]), self._name, key, lasts)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=True)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(_pem(builder, self._key), text)

    def write(self, folder: Path, name: str = "authority") -> Path:
        """Write its certificate; the path."""
        path = folder / f"{name}.crt"
        write_atomically(path, self.pem)
        return path


def gateway(authority: Authority, *, lasts: timedelta = DAY) -> Issued:
    """The gateway's certificate as a client."""
    return authority.issue(GATEWAY, lasts=lasts)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now - 7 * DAY, now + lasts
    )


def _pem(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
