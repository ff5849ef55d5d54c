"""The policy files: read whole, watched, and kept.

A change takes effect only if every file is right; otherwise the last good
policy stays in force and the error is told. The last good texts are kept on
disk, so a gateway that starts beside a broken file starts with those.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from joserfc.jwk import ECKey

from gateway.clock import Clock
from gateway.published_keys import FETCH_S, WAIT_S, KeysError, PublishedKeys
from gateway.snapshot.build import Policy, build
from governance.bundle import parse_bundle
from governance.issuers import Issuer, Issuers, parse_issuers, usable_keys
from governance.ownership import Ownership, parse_ownership
from llmesh.document import DocumentError
from llmesh.home import Home, write_atomically

log = logging.getLogger(__name__)

POLL_S = 0.1
# A disk that is slower than this is left to itself.
DISK_WAIT_S = 0.5


class PolicyError(Exception):
    """The policy files cannot be used. The message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy in force, and who owns which packages. rules: texts that the bundle is made of, by file name."""

    policy: Policy
    ownership: Ownership
    rules: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class PolicyFiles:
    """The policy directory of one mesh. development: whether a development issuer may be believed."""

    def __init__(self, folder: Path, home: Home, *, development: bool) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._home = home
        self._development = development
        self._kept = home.state / "policy.json"
        self._told = home.state / "policy_error.txt"
        # One thread, so that the disk has what is newest.
        self._disk = ThreadPoolExecutor(1, "policy")
        # What the disk was last told to have.
        self._written: dict[Path, str | None] = {}
        self._writing: Future[None] | None = None
        self._published = PublishedKeys(home.state)
        self._good: Loaded | None = None
        # What the files held when they were loaded last, or why they could not be read.
        self._read_last: Mapping[str, str] | str = {}
        # What is wrong with the files, and what Envoy refuses of them: Envoy's words by name.
        self._fault = ""
        self._refusals: dict[str, str] = {}
        # How often the files were right and wrong.
        self.loads = 0
        self.load_errors = 0

    @property
    def error(self) -> str:
        """Why something other than what the files say is in force; empty if it is not."""
        refused = (f"Envoy refuses `{name}`: {words}" for name, words in self._refusals.items())
        return "; ".join(filter(None, (self._fault, *refused)))

    @property
    def stale_keys(self) -> list[str]:
        """Which issuers' keys could not be fetched again, and why; those from before are in force, for a day."""
        issuers = self._good.policy.issuers.issuers if self._good else ()
        return self._published.faults(issuer for issuer in issuers if issuer.publishes)

    def refuse(self, name: str, words: str) -> None:
        """Envoy does not take what the policy in force makes of one of its filters, and goes on with another."""
        self._refusals[name] = words
        self._tell()

    def accept(self, name: str) -> None:
        """Envoy takes it after all."""
        self._refusals.pop(name, None)
        self._tell()

    def _tell(self) -> None:
        self._keep(self._told, self.error or None)

    def load(self) -> Loaded:
        """The policy that the files hold, or else the last good one. Raises PolicyError if there is neither.

        What is wrong with the files stands in policy_error.txt for as long as it is.
        """
        try:
            return self._load()
        finally:
            if self._writing:
                wait([self._writing], timeout=DISK_WAIT_S)

    def _load(self) -> Loaded:
        texts = self._read_last = self._read_quietly()
        try:
            loaded = self._judge(texts)
        except (DocumentError, PolicyError) as error:
            self._fault = self._words(error)
            self.load_errors += 1
            log.error("policy refused", extra={"error": self._fault})  # noqa: TRY400 - the message says it all
            self._good = self._newly_keyed(self._good or self._last_good(error))
            # Told of a policy that stays in force: a gateway that cannot start says so as it ends.
            self._tell()
            return self._good
        self._fault = ""
        self.loads += 1
        self._good = loaded
        self._keep(self._kept, json.dumps(texts, sort_keys=True))
        self._tell()
        return loaded

    def _keep(self, path: Path, text: str | None) -> None:
        """Write it (None: remove it) once the disk lets us: what is in force does not hang on what is kept."""
        if path in self._written and self._written[path] == text:
            return
        self._written[path] = text

        def write() -> None:
            try:
                if text is None:
                    path.unlink(missing_ok=True)
                else:
                    write_atomically(path, text.encode(errors="replace"))
            except OSError:
                self._written.pop(path, None)
                log.exception("policy could not be kept", extra={"path": str(path)})

        self._writing = self._disk.submit(write)

    def _last_good(self, error: Exception) -> Loaded:
        try:
            return self._parse(_without_published_keys(json.loads(self._kept.read_text())))
        except FileNotFoundError:
            raise PolicyError(f"{self._fault}; there is no earlier policy to go on with") from error
        except (
            DocumentError,
            PolicyError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as unusable:
            # It was damaged, or kept by another version.
            log.error("kept policy refused", extra={"error": str(unusable)})  # noqa: TRY400 - the message says it all
            raise PolicyError(f"{self._fault}; the earlier policy in {self._kept} cannot be used either") from error

    async def watch(self, clock: Clock) -> AsyncGenerator[Loaded]:
        """The policy, then each newer one that is right."""
        # A disk that is slow must not keep all else waiting.
        loaded = self._good or await asyncio.to_thread(self.load)
        yield loaded
        while True:
            await clock.sleep(POLL_S)
            texts = await asyncio.to_thread(self._read_quietly)
            if texts == self._read_last and not self._fault:
                continue
            # Whatever is wrong with a file, keys come and go.
            read = self.load if texts != self._read_last else partial(self._newly_keyed, loaded)
            newer = await asyncio.to_thread(read)
            if newer != loaded:
                loaded = self._good = newer
                log.info("policy loaded", extra={"bundle": loaded.policy.bundle.digest})
                yield loaded

    def _read_quietly(self) -> Mapping[str, str] | str:
        try:
            return self._read()
        except (OSError, PolicyError, KeysError, DocumentError) as error:
            return self._words(error)

    def _words(self, error: Exception) -> str:
        # A policy file and the mesh file can have the same name.
        return f"{self._folder}/{error}" if isinstance(error, DocumentError) else str(error)

    def _read(self) -> Mapping[str, str]:
        names = ["mesh.yaml", "ownership.yaml", "issuers.yaml"]
        names += sorted(f"domains/{path.name}" for path in self._folder.glob("domains/*.yaml"))
        texts = {name: self._text(self._folder / name) for name in names}
        for issuer in _issuers(texts["issuers.yaml"]).issuers:
            texts[f"keys/{issuer.name}"] = self._keys(issuer)
        return texts

    def _keys(self, issuer: Issuer) -> str:
        if issuer.publishes:
            # A mesh that has no policy yet has nothing better to do.
            return self._published.jwks(issuer, wait_s=WAIT_S if self._good else FETCH_S)
        return self._text((self._home.keys if issuer.development else self._folder) / issuer.jwks)

    def _newly_keyed(self, loaded: Loaded) -> Loaded:
        """The same with the keys that its issuers publish now."""
        keys = dict(loaded.policy.keys)
        for issuer in loaded.policy.issuers.issuers:
            if issuer.publishes:
                with suppress(KeysError, DocumentError):
                    keys[issuer.name] = _usable(issuer, self._published.jwks(issuer))
        return loaded if keys == loaded.policy.keys else replace(loaded, policy=replace(loaded.policy, keys=keys))

    @staticmethod
    def _text(path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise PolicyError(f"{path} is missing") from error
        except UnicodeDecodeError as error:
            raise PolicyError(f"{path} is not UTF-8") from error

    def _judge(self, texts: Mapping[str, str] | str) -> Loaded:
        """What the texts say. texts: or why there are none."""
        if isinstance(texts, str):
            raise PolicyError(texts)
        return self._parse(texts)

    def _parse(self, texts: Mapping[str, str]) -> Loaded:
        issuers = _issuers(texts["issuers.yaml"])
        for issuer in issuers.issuers:
            if issuer.development and not self._development:
                raise PolicyError(
                    f"issuers.yaml: `{issuer.name}` is a development issuer, which a mesh that listens beyond "
                    "loopback does not believe; remove it"
                )
        keys = {issuer.name: _usable(issuer, texts[f"keys/{issuer.name}"]) for issuer in issuers.issuers}
        domains = {name: text for name, text in texts.items() if name.startswith("domains/")}
        ownership = parse_ownership(texts["ownership.yaml"])
        bundle = parse_bundle(texts["mesh.yaml"], domains, ownership=ownership)
        policy = Policy(bundle, issuers, keys)
        try:
            build({}, policy)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"issuers.yaml: Envoy cannot be told what it says: {error}") from error
        return Loaded(policy, ownership, MappingProxyType({"mesh.yaml": texts["mesh.yaml"], **domains}))


def _usable(issuer: Issuer, text: str) -> str:
    """The keys that verify an issuer's tokens. text: a JWKS; empty: none is believed. Raises DocumentError."""
    return usable_keys(issuer, text) if text else _nobodys_keys()


def _without_published_keys(texts: Mapping[str, str]) -> Mapping[str, str]:
    """Kept texts do not tell how old they are: PublishedKeys knows of which keys it was not too long ago."""
    issuers = _issuers(texts["issuers.yaml"]).issuers
    return {**texts, **{f"keys/{issuer.name}": "" for issuer in issuers if issuer.publishes}}


@functools.cache
def _nobodys_keys() -> str:
    # Envoy takes no JWKS without a key: the private part of this one is forgotten here.
    key = ECKey.generate_key("P-256", parameters={"kid": "nobody", "alg": "ES256"})
    return json.dumps({"keys": [key.as_dict(private=False)]})


@functools.lru_cache(maxsize=2)
def _issuers(text: str) -> Issuers:
    # The files are read many times a second, and YAML takes its time.
    return parse_issuers(text)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
