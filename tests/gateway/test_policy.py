from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from gateway import policy
from gateway.policy import POLL_S, Loaded, PolicyError, PolicyFiles, is_loopback
from llmesh import home
from tests.envoy import ISSUERS, JWKS, KEY, READS
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock
from tests.gateway.policy_files import BROKEN, OWNERSHIP, Folder

DEVELOPMENT = ISSUERS.replace("audiences:", "development: true\n  audiences:")
OTHER = READS.replace("everyone reads", "all may read")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.make(tmp_path)


def reason(loaded: Loaded) -> str:
    return next(iter(loaded.policy.bundle.mesh)).reason


def test_the_files_are_read_whole(folder: Folder) -> None:
    loaded = folder.files().load()

    assert reason(loaded) == "everyone reads"
    assert json.loads(loaded.policy.keys["corp"])["keys"][0]["kid"] == "one"
    assert loaded.ownership.domain_of("acme.support.v1") == "support"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("mesh.yaml", BROKEN, "mesh.yaml:2: ", id="a broken rule"),
        pytest.param("issuers.yaml", ISSUERS.replace("ES256", "HS256"), "issuers.yaml:", id="a shared-key issuer"),
        pytest.param("ownership.yaml", "owners: 5", "ownership.yaml:1: ", id="broken ownership"),
        pytest.param("corp.jwks.json", '{"keys": []}', "corp.jwks.json:1: no key", id="no key"),
        pytest.param("corp.jwks.json", JWKS.replace('"kty"', '"d": "x", "kty"'), "private", id="a private key"),
        pytest.param(
            "domains/sales.yaml", "version: 1\ndomain: support\ndefault: deny", "domains/sales.yaml", id="domain"
        ),
        pytest.param(
            "domains/suport.yaml",
            "version: 1\ndomain: suport\ndefault: deny",
            "domains/suport.yaml:2: ",
            id="a domain that owns nothing",
        ),
    ],
)
def test_a_broken_file_leaves_the_last_good_policy_in_force(folder: Folder, name: str, text: str, said: str) -> None:
    files = folder.files()
    good = files.load()

    folder.write(name, text)

    assert files.load() == good
    assert said in files.error


@pytest.mark.parametrize("name", ["mesh.yaml", "issuers.yaml", "ownership.yaml", "corp.jwks.json"])
def test_a_missing_file_leaves_the_last_good_policy_in_force(folder: Folder, name: str) -> None:
    files = folder.files()
    good = files.load()

    (folder.policies / name).unlink()

    assert files.load() == good
    assert f"{name} is missing" in files.error


def test_a_file_that_is_no_text_is_refused_by_name(folder: Folder) -> None:
    files = folder.files()
    good = files.load()

    (folder.policies / "mesh.yaml").write_bytes(b"\xff\xfe")

    assert files.load() == good
    assert "mesh.yaml is not UTF-8" in files.error


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("mesh.yaml", "version: 1\nrules: 2026-99-99\n", "mesh.yaml:2: ", id="no such day"),
        pytest.param("mesh.yaml", f"version: 1\nrules: {'[' * 5000}", "mesh.yaml:2: ", id="nested without end"),
        pytest.param("mesh.yaml", "version: 1\nrules: &a [*a]", "mesh.yaml:2: ", id="in itself"),
        pytest.param("mesh.yaml", f"version: {'1' * 5000}", "mesh.yaml:1: ", id="a number without end"),
        pytest.param(
            "mesh.yaml",
            READS.replace("reason:", 'when: "\\ud800", reason:'),
            "invalid Unicode character",
            id="half a character",
        ),
        pytest.param(
            "issuers.yaml",
            ISSUERS.replace("audiences:", 'audiences: ["\\ud800"] #'),
            "invalid Unicode",
            id="an audience",
        ),
        pytest.param("corp.jwks.json", '{"keys": ' + "[" * 100_000, "corp.jwks.json:1: ", id="keys without end"),
    ],
)
def test_no_text_breaks_the_gateway_even_if_it_starts_beside_it(
    folder: Folder, name: str, text: str, said: str
) -> None:
    good = folder.files().load()
    folder.write(name, text)
    for _ in range(2):
        files = folder.files()
        assert files.load() == good
        assert said in files.error


def test_what_envoy_cannot_be_told_is_refused_and_not_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    good = folder.files().load()
    kept = (folder.home.state / "policy.json").read_bytes()
    folder.write("mesh.yaml", OTHER)

    def fail(*_: object) -> None:
        raise ValueError("no such message")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.policy.build", fail)
        with pytest.raises(PolicyError, match="Envoy cannot be told"):
            folder.files().load()
    assert (folder.home.state / "policy.json").read_bytes() == kept
    assert good


def test_a_disk_that_cannot_be_written_keeps_no_policy_from_taking_effect(folder: Folder) -> None:
    files = folder.files()
    files.load()
    shutil.rmtree(folder.home.state)
    folder.write("mesh.yaml", OTHER)
    assert reason(files.load()) == "all may read"

    folder.write("mesh.yaml", BROKEN)

    assert reason(files.load()) == "all may read"
    assert "mesh.yaml:2: " in files.error


def test_why_the_files_are_refused_is_told_on_disk_until_they_are_right(folder: Folder) -> None:
    told = folder.home.state / "policy_error.txt"
    files = folder.files()
    files.load()
    assert not told.exists()

    folder.write("mesh.yaml", BROKEN)
    files.load()
    assert told.read_text() == files.error

    folder.write("mesh.yaml", READS)
    files.load()
    assert not told.exists()


def test_what_envoy_refuses_of_the_policy_is_told_until_it_takes_it(folder: Folder) -> None:
    told = folder.home.state / "policy_error.txt"
    files = folder.files()
    files.load()

    files.refuse("llmesh.verify", "bad keys")
    assert files.error == "Envoy refuses `llmesh.verify`: bad keys"
    folder.write("mesh.yaml", BROKEN)
    files.load()
    assert "mesh.yaml:2: " in files.error
    assert "bad keys" in files.error
    folder.write("mesh.yaml", READS)
    files.load()
    assert files.error == told.read_text() == "Envoy refuses `llmesh.verify`: bad keys"

    files.accept("llmesh.verify")
    assert files.error == ""
    # What was to be written is, once it is loaded again.
    files.load()
    assert not told.exists()


def test_keys_that_envoy_could_not_use_leave_the_last_good_policy_in_force(folder: Folder) -> None:
    files = folder.files()
    good = files.load()
    key = {**KEY.as_dict(private=False), "x": "AAAA"}

    folder.write("corp.jwks.json", json.dumps({"keys": [key]}))

    assert files.load() == good
    assert "corp.jwks.json:1: key 1 is no key for ES256" in files.error


def test_a_mended_file_takes_effect_and_clears_the_error(folder: Folder) -> None:
    files = folder.files()
    files.load()
    folder.write("mesh.yaml", BROKEN)
    files.load()

    folder.write("mesh.yaml", OTHER)

    assert reason(files.load()) == "all may read"
    assert files.error == ""


def test_a_gateway_that_starts_beside_a_broken_file_starts_with_the_last_good(folder: Folder) -> None:
    good = folder.files().load()
    folder.write("mesh.yaml", BROKEN)

    files = folder.files()

    assert files.load() == good
    assert "mesh.yaml:2: " in files.error


def test_a_gateway_that_starts_beside_no_files_starts_with_the_last_good(folder: Folder) -> None:
    good = folder.files().load()
    shutil.rmtree(folder.policies)

    assert folder.files().load() == good


def test_without_an_earlier_policy_a_broken_file_stops_the_gateway_with_its_words(folder: Folder) -> None:
    folder.write("mesh.yaml", BROKEN)

    with pytest.raises(PolicyError, match=r"mesh\.yaml:2: .*no earlier policy"):
        folder.files().load()


@pytest.mark.parametrize("kept", ["", "{", "[]", "5", "{}", '{"mesh.yaml": 5}'])
def test_a_damaged_earlier_policy_stops_the_gateway_with_words_too(folder: Folder, kept: str) -> None:
    folder.files().load()
    (folder.home.state / "policy.json").write_text(kept)
    folder.write("mesh.yaml", BROKEN)

    with pytest.raises(PolicyError, match="cannot be used either"):
        folder.files().load()


def test_what_is_kept_is_for_the_owner_alone(folder: Folder) -> None:
    folder.files().load()

    assert (folder.home.state / "policy.json").stat().st_mode & 0o077 == 0


async def test_a_policy_is_in_force_though_the_disk_hangs_and_is_kept_when_it_no_longer_does(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, fsync = threading.Event(), os.fsync

    def slow(handle: int) -> None:
        assert hanging.wait(120)
        fsync(handle)

    monkeypatch.setattr(home.os, "fsync", slow)
    monkeypatch.setattr(policy, "DISK_WAIT_S", 0.01)
    files = folder.files()
    assert reason(files.load()) == "everyone reads"
    folder.write("mesh.yaml", OTHER)
    assert reason(files.load()) == "all may read"
    hanging.set()

    async def kept() -> None:
        path = folder.home.state / "policy.json"
        assert path.exists()
        assert "all may read" in path.read_text()

    await eventually(kept)


def with_development_issuer(folder: Folder) -> None:
    folder.write("issuers.yaml", DEVELOPMENT)
    # The development issuer's keys are the mesh directory's own.
    (folder.home.keys / "corp.jwks.json").write_text(JWKS)


def test_a_development_issuer_is_believed_on_this_machine_alone(folder: Folder) -> None:
    with_development_issuer(folder)

    assert folder.files(development=True).load().policy.issuers.issuers[0].development
    # Not even from the copy that was kept while the mesh was local.
    with pytest.raises(PolicyError, match=r"development issuer.*beyond loopback"):
        folder.files(development=False).load()


def test_a_development_issuer_that_is_added_beyond_loopback_changes_nothing(folder: Folder) -> None:
    files = folder.files(development=False)
    good = files.load()
    with_development_issuer(folder)

    assert files.load() == good
    assert "development issuer" in files.error


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - to be refused
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_only_loopback_is_this_machine_alone(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


class Watched:
    """The policies that a watcher yields while the clock is ours."""

    def __init__(self, files: PolicyFiles) -> None:
        self.files = files
        self.clock = FakeClock()
        self.reasons: list[str] = []

    async def follow(self) -> None:
        async with aclosing(self.files.watch(self.clock)) as policies:
            async for loaded in policies:
                self.reasons.append(reason(loaded))

    async def looks_until(self, check: Callable[[], bool]) -> None:
        """Let one look after another pass until it is so."""

        async def is_so() -> None:
            await self.clock.pass_(POLL_S)
            assert check()

        await eventually(is_so)


@asynccontextmanager
async def watching(folder: Folder) -> AsyncGenerator[Watched]:
    watched = Watched(folder.files())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watched.follow())
        await watched.looks_until(lambda: watched.reasons == ["everyone reads"])
        yield watched
        task.cancel()


async def test_an_edit_is_taken_up_at_a_later_look(folder: Folder) -> None:
    async with watching(folder) as watched:
        folder.write("mesh.yaml", OTHER)
        assert watched.reasons == ["everyone reads"]

        await watched.looks_until(lambda: watched.reasons == ["everyone reads", "all may read"])


async def test_a_broken_edit_is_not_taken_up_and_is_told(folder: Folder) -> None:
    async with watching(folder) as watched:
        folder.write("mesh.yaml", BROKEN)
        await watched.looks_until(lambda: "mesh.yaml:2: " in watched.files.error)
        assert watched.reasons == ["everyone reads"]

        folder.write("mesh.yaml", READS)
        await watched.looks_until(lambda: watched.files.error == "")
        assert watched.reasons == ["everyone reads"]


async def test_what_changes_no_policy_is_not_told_again(folder: Folder) -> None:
    async with watching(folder) as watched:
        folder.write("ownership.yaml", OWNERSHIP + "# a remark\n")
        await watched.looks_until(lambda: watched.files.loads == 2)
        # One more, whose change is told after what came before.
        folder.write("mesh.yaml", OTHER)
        await watched.looks_until(lambda: len(watched.reasons) > 1)

        assert watched.reasons == ["everyone reads", "all may read"]


async def test_a_new_domains_file_is_taken_up(folder: Folder) -> None:
    async with watching(folder) as watched:
        folder.write("domains/support.yaml", "version: 1\ndomain: support\ndefault: deny\n")
        await watched.looks_until(lambda: len(watched.reasons) == 2)


async def test_all_else_goes_on_while_the_disk_hangs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, read_text = threading.Event(), Path.read_text

    def hangs(path: Path, encoding: str | None = None) -> str:
        # Nobody sets it but the loop, which must not wait for it.
        assert goes_on.wait(120)
        return read_text(path, encoding=encoding)

    async with watching(folder) as watched:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", hangs)
            folder.write("mesh.yaml", OTHER)
            await watched.clock.pass_(POLL_S)
            goes_on.set()
            await watched.looks_until(lambda: len(watched.reasons) == 2)


async def test_what_has_not_changed_is_not_written_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    files, written = folder.files(), list[Path]()

    def record(path: Path, _: bytes) -> None:
        written.append(path)

    monkeypatch.setattr(policy, "write_atomically", record)
    for _ in range(3):
        files.load()
    assert written == [folder.home.state / "policy.json"]
