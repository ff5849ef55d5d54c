"""What of a pair of files is refused, with the file and what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from llmesh.certificates import CertificateError, read_authority, read_pair
from tests.pki import Authority

AUTHORITY = Authority()
WANTED = "must be an ECDSA key on P-256, P-384 or P-521, or RSA of 2048 to 4096 bits"


def as_pem(key: PrivateKeyTypes, *, password: bytes = b"") -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def test_a_pair_says_whom_it_names(tmp_path: Path) -> None:
    issued = AUTHORITY.issue("a.example", "10.0.0.1", "llmesh://gateway", "::1")
    pair = read_pair(*issued.write(tmp_path))
    assert pair.hosts == ("a.example", "10.0.0.1", "::1")
    assert pair.uris == ("llmesh://gateway",)
    assert (pair.certificate, pair.key) == (issued.certificate, issued.key)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (as_pem(ec.generate_private_key(ec.SECP256R1())), "is not the key of the certificate"),
        (as_pem(ec.generate_private_key(ec.SECP256R1()), password=b"secret"), "is encrypted"),
        (
            as_pem(ed25519.Ed25519PrivateKey.generate()),
            WANTED,
        ),
        (
            as_pem(rsa.generate_private_key(65537, 1024)),  # noqa: S505 the case in point
            WANTED,
        ),
        (as_pem(ec.generate_private_key(ec.SECP256K1())), WANTED),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "holds no private key in PEM"),
        (b"", "holds no private key in PEM"),
    ],
    ids=["another", "encrypted", "ed25519", "short rsa", "another curve", "garbage", "empty"],
)
def test_a_key_that_cannot_be_used_is_told_and_not_quoted(tmp_path: Path, key: bytes, says: str) -> None:
    certificate, path = AUTHORITY.issue("a.example").write(tmp_path)
    path.write_bytes(key)
    with pytest.raises(CertificateError, match=says) as refused:
        read_pair(certificate, path)
    assert f"`{path}`" in str(refused.value)
    assert not [line for line in key.decode().splitlines()[1:-1] if line in str(refused.value)]


def test_an_authority_that_has_ended_is_told(tmp_path: Path) -> None:
    path = tmp_path / "authority.crt"
    path.write_bytes(AUTHORITY.pem + AUTHORITY.issue("a", lasts=timedelta(minutes=-1)).certificate)
    with pytest.raises(CertificateError, match=r"the certificate in `.*authority.crt` expired at"):
        read_authority(path)
