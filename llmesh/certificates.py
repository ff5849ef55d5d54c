"""Certificates and keys from files, judged before anybody shows or believes them.

What is wrong with a file is said here, with its path, rather than met later as
a handshake that fails.
"""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmesh.home import Home

if TYPE_CHECKING:
    # A tenth of a second that most processes need not spend.
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

__all__ = [
    "GATEWAY",
    "CertificateError",
    "Pair",
    "Stamp",
    "first_host",
    "own_certificate",
    "read_authority",
    "read_pair",
    "stamp",
]

log = logging.getLogger(__name__)

# How the gateway is named in its certificate as a client: a URI among the subject alternative names.
GATEWAY = "llmesh://gateway"
# What Envoy takes.
RSA_BITS = 2048, 4096
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# Changes when one of some files does.
Stamp = tuple[tuple[int, int, int] | None, ...]


class CertificateError(Exception):
    """A file cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM.

    certificate: with those that vouch for it. hosts, uris: whom it names. ends: when it expires.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    hosts: tuple[str, ...]
    uris: tuple[str, ...]
    ends: datetime


def read_pair(certificate: Path, key: Path) -> Pair:
    """The pair that is in these files and in force now. Raises CertificateError."""
    texts = _read(certificate), _read(key, secret=True)
    first = _certificates(certificate, texts[0])[0]
    if _private_key(key, texts[1]).public_key() != _public_key(certificate, first):
        raise CertificateError(f"`{key}` is not the key of the certificate in `{certificate}`")
    _check_in_force(certificate, first)
    hosts, uris = _names(certificate, first)
    return Pair(*texts, hosts, uris, first.not_valid_after_utc)


def read_authority(path: Path) -> bytes:
    """The certificates in the file, PEM, each in force now. Raises CertificateError."""
    text = _read(path)
    for each in _certificates(path, text):
        _check_in_force(path, each)
    return text


def first_host(path: Path, certificate: bytes) -> str:
    """A host that the certificate, PEM, of a path names; a wildcard filled in. Raises CertificateError."""
    hosts, _ = _names(path, _certificates(path, certificate)[0])
    return hosts[0].replace("*", "mesh", 1) if hosts else ""


def own_certificate(home: Home) -> tuple[bytes | None, str]:
    """What the mesh of a directory shows, PEM, and a host that it names; None and no host where that is not known."""
    path = home.port_certificate
    try:
        certificate = path.read_bytes()
        return certificate, first_host(path, certificate)
    except (OSError, CertificateError):
        return None, ""


def stamp(*paths: Path) -> Stamp:
    """What changes when one of the files does; one that is not there counts too."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        if secret and path.stat().st_mode & _OTHERS:
            log.warning("private key can be read by others: set its mode to 600", extra={"path": str(path)})
        return path.read_bytes()
    except OSError as err:
        raise CertificateError(f"`{path}` cannot be read: {err.strerror}") from err


def _certificates(path: Path, text: bytes) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(text)
    except ValueError as err:
        raise CertificateError(f"`{path}` holds no certificate in PEM") from err


def _private_key(path: Path, text: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(text, password=None)
    except TypeError as err:
        raise CertificateError(
            f"`{path}` is encrypted: give the key without a password, in a file of mode 600"
        ) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        # What is wrong with it may quote it.
        raise CertificateError(f"`{path}` holds no private key in PEM") from err
    if (isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in _CURVES) or (
        isinstance(found, rsa.RSAPrivateKey) and RSA_BITS[0] <= found.key_size <= RSA_BITS[1]
    ):
        return found
    smallest, largest = RSA_BITS
    raise CertificateError(
        f"`{path}` must be an ECDSA key on P-256, P-384 or P-521, or RSA of {smallest} to {largest} bits"
    )


def _public_key(path: Path, certificate: Certificate) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as err:
        raise CertificateError(f"the certificate in `{path}` has a key of a kind that is not known") from err


def _check_in_force(path: Path, certificate: Certificate) -> None:
    now, starts, ends = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise CertificateError(f"the certificate in `{path}` expired at {ends:%F %R} UTC")
    if now < starts:
        raise CertificateError(f"the certificate in `{path}` is valid only from {starts:%F %R} UTC")


def _names(path: Path, certificate: Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as err:
        raise CertificateError(f"the certificate in `{path}` has extensions that cannot be read") from err
    addresses = (str(each) for each in names.get_values_for_type(x509.IPAddress))
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return (*names.get_values_for_type(x509.DNSName), *addresses), tuple(uris)
