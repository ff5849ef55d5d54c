"""The mesh's certificates, as their files change under a running gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import certificates
from gateway.certificates import Certificates
from llmesh.home import Home
from llmesh.mesh_file import TlsSettings
from tests.pki import Authority


def test_what_has_not_changed_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Authority().issue("a.example").write(tmp_path)
    home, written = Home(tmp_path / "home").create(), list[Path]()

    def record(path: Path, _: bytes) -> None:
        written.append(path)

    monkeypatch.setattr(certificates, "write_atomically", record)
    found = Certificates(TlsSettings(certificate=files[0], key=files[1]), None, home)
    found._load()  # pyright: ignore[reportPrivateUsage] - as a look at changed files does

    assert written == [home.port_certificate]
