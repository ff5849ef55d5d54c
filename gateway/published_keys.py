"""Keys that issuers publish at a URL: fetched now and then, kept on disk, and read like those in a file.

A fetch never keeps anybody waiting but whoever has no keys yet. Where one
fails, or brings what is no use, the keys from before stay.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any as Untyped

from governance.issuers import Issuer, usable_keys
from llmesh.document import DocumentError
from llmesh.home import write_atomically

log = logging.getLogger(__name__)

# After a fetch that failed.
RETRY_S = 15.0
# Of a connection, and between two pieces of an answer; and of a fetch altogether.
SILENCE_S = 5.0
FETCH_S = 10.0
MAX_BYTES = 256 * 1024


class KeysError(Exception):
    """An issuer's keys cannot be had. The message says from where, and why."""


@dataclass(slots=True)
class _Keys:
    """What is known of one issuer's keys. jwks: None before the first came. due_s: when they are to be fetched next."""

    url: str
    jwks: str | None
    fault: str = ""
    due_s: float = 0.0
    started_s: float = 0.0
    fetching: threading.Thread | None = None


class PublishedKeys:
    """The keys of all issuers that publish them. clock: monotonic seconds."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is fetched yet. folder: where they are kept."""
        self._folder = folder
        self._clock = clock
        self._known: dict[str, _Keys] = {}

    def jwks(self, issuer: Issuer) -> str:
        """The keys that were fetched last; at first, once they have been. Raises KeysError if none ever were."""
        known = self._known.get(issuer.name)
        if known is None or known.url != issuer.jwks:
            known = self._known[issuer.name] = _Keys(issuer.jwks, self._kept(issuer))
        self._look_after(issuer, known)
        if known.jwks is None and known.fetching is not None:
            known.fetching.join(FETCH_S)
        if known.jwks is None:
            raise KeysError(self._words(issuer.name, known))
        return known.jwks

    def faults(self, issuers: Collection[str]) -> list[str]:
        """What went wrong when the keys of these issuers were last to be fetched, of those that have some."""
        found = {name: self._known[name] for name in sorted(issuers) if name in self._known}
        return [self._words(name, known) for name, known in found.items() if known.fault and known.jwks is not None]

    @staticmethod
    def _words(name: str, known: _Keys) -> str:
        return f"the keys of issuer `{name}` cannot be had from {known.url}: {known.fault or 'no answer yet'}"

    def _look_after(self, issuer: Issuer, known: _Keys) -> None:
        """Begin a fetch where one is due, and give up one that takes too long."""
        now_s = self._clock()
        if known.fetching is not None and now_s > known.started_s + 2 * FETCH_S:
            known.fetching, known.fault, known.due_s = None, "the answer does not end", now_s + RETRY_S
        if known.fetching is None and now_s >= known.due_s:
            known.started_s = now_s
            known.fetching = threading.Thread(target=self._fetch, args=(issuer, known), daemon=True)
            known.fetching.start()

    def _fetch(self, issuer: Issuer, known: _Keys) -> None:
        try:
            text = fetch(known.url)
            usable_keys(issuer, text)
        except (KeysError, DocumentError) as error:
            fault = error.message if isinstance(error, DocumentError) else str(error)
            self._end(issuer, known, fault=fault)
        else:
            self._end(issuer, known, jwks=text)

    def _end(self, issuer: Issuer, known: _Keys, *, jwks: str | None = None, fault: str = "") -> None:
        if known.fetching is not threading.current_thread():
            # Nobody waits for it any more.
            return
        if fault and fault != known.fault:
            log.warning("keys not fetched", extra={"issuer": issuer.name, "url": known.url, "error": fault})
        if jwks is not None and jwks != known.jwks:
            log.info("keys fetched", extra={"issuer": issuer.name, "url": known.url})
            known.jwks = jwks
            self._keep(issuer, jwks)
        known.fault = fault
        known.due_s = self._clock() + (RETRY_S if fault else issuer.refresh_s)
        known.fetching = None

    def _path(self, issuer: Issuer) -> Path:
        return self._folder / f"keys-{issuer.name}.json"

    def _keep(self, issuer: Issuer, jwks: str) -> None:
        try:
            write_atomically(self._path(issuer), json.dumps({"url": issuer.jwks, "jwks": jwks}).encode())
        except OSError:
            log.exception("keys could not be kept", extra={"issuer": issuer.name})

    def _kept(self, issuer: Issuer) -> str | None:
        """Those from before this process; None if there are none, or another URL's."""
        try:
            kept: Untyped = json.loads(self._path(issuer).read_text())
            return str(kept["jwks"]) if kept["url"] == issuer.jwks else None
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever answers for the URL must have the keys itself."""

    def redirect_request(self, *_: object) -> None:  # type: ignore[override]
        """Follow none."""
        return


def fetch(url: str) -> str:
    """What a URL answers, as text. Raises KeysError."""
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(_NoRedirects, https)
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - Issuer checks the scheme
    end_s = time.monotonic() + FETCH_S
    content = b""
    try:
        with opener.open(request, timeout=SILENCE_S) as answer:
            while piece := answer.read1(1 << 16):
                content += piece
                if len(content) > MAX_BYTES:
                    raise KeysError(f"the answer has more than {MAX_BYTES} bytes")
                if time.monotonic() > end_s:
                    raise KeysError(f"the answer takes more than {FETCH_S:.0f} s")
        return content.decode()
    except urllib.error.HTTPError as error:
        with error:
            raise KeysError(f"it answers {error.code}, expected 200 without a redirect") from error
    except urllib.error.URLError as error:
        raise KeysError(str(error.reason)) from error
    except UnicodeDecodeError as error:
        raise KeysError("the answer is not UTF-8") from error
    except (OSError, HTTPException) as error:
        raise KeysError(str(error) or type(error).__name__) from error
