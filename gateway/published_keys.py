"""Keys that issuers publish at a URL: fetched now and then, kept on disk, and read like those in a file.

A fetch keeps nobody waiting but, for a moment, who has no keys yet. Where one
fails, or brings what is no use, the keys from before stay for a day; an issuer
that has not shown its keys for longer is believed nothing.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
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
# How long whoever asks for keys that never came waits for a fetch, once, unless there is nothing else to go on with.
WAIT_S = 1.0
MAX_BYTES = 256 * 1024
# How long keys are believed that the issuer has not shown again: it may have withdrawn them since.
BELIEVED_S = 24 * 60 * 60


class KeysError(Exception):
    """An issuer's keys cannot be had. The message says from where, and why."""


@dataclass(slots=True)
class _Keys:
    """What is known of one issuer's keys.

    jwks: None before the first came. shown_s: when the issuer last showed them, Unix seconds. due_s: when they are to
    be fetched next. waited: whether somebody has waited for this fetch.
    """

    jwks: str | None
    shown_s: float
    fault: str = ""
    due_s: float = 0.0
    started_s: float = 0.0
    waited: bool = False
    fetching: threading.Thread | None = None


class PublishedKeys:
    """The keys of all issuers that publish them. To be called from any thread."""

    def __init__(
        self, folder: Path, *, clock: Callable[[], float] = time.monotonic, unix_s: Callable[[], float] = time.time
    ) -> None:
        """Nothing is fetched yet. folder: where they are kept. clock: monotonic seconds."""
        self._folder = folder
        self._clock = clock
        self._unix_s = unix_s
        # By the issuer's name and URL.
        self._known: dict[tuple[str, str], _Keys] = {}
        self._lock = threading.Lock()

    def jwks(self, issuer: Issuer, *, wait_s: float = WAIT_S) -> str:
        """The keys that the issuer showed last; empty if that is too long ago.

        Who asks first for an issuer that has none yet waits for them, no longer than wait_s. Raises KeysError if
        none ever came.
        """
        with self._lock:
            key = issuer.name, issuer.jwks
            known = self._known.get(key) or self._known.setdefault(key, self._kept(issuer))
            self._look_after(issuer, known)
            waiting = known.fetching if known.jwks is None and not known.waited else None
            known.waited = True
        if waiting is not None:
            waiting.join(wait_s)
        if known.jwks is None:
            raise KeysError(self._words(issuer, known))
        return known.jwks if self._is_believed(known) else ""

    def _is_believed(self, known: _Keys) -> bool:
        return self._unix_s() - known.shown_s <= BELIEVED_S

    def faults(self, issuers: Iterable[Issuer]) -> list[str]:
        """What went wrong when the keys of these issuers were last to be fetched, of those that have some."""
        found = (
            (each, self._known.get((each.name, each.jwks))) for each in sorted(issuers, key=lambda each: each.name)
        )
        return [self._words(each, known) for each, known in found if known and known.fault and known.jwks is not None]

    def _words(self, issuer: Issuer, known: _Keys) -> str:
        words = f"the keys of issuer `{issuer.name}` cannot be had from {issuer.jwks}: {known.fault or 'no answer yet'}"
        believed = known.jwks is None or self._is_believed(known)
        return words if believed else f"{words}; its tokens are refused, as it has not shown its keys for a day"

    def _look_after(self, issuer: Issuer, known: _Keys) -> None:
        """Begin a fetch where one is due, and give up one that takes too long."""
        now_s = self._clock()
        if known.fetching is not None and now_s > known.started_s + 2 * FETCH_S:
            known.fetching, known.fault, known.due_s = None, "the answer does not end", now_s + RETRY_S
        if known.fetching is None and now_s >= known.due_s:
            known.started_s, known.waited = now_s, False
            known.fetching = threading.Thread(target=self._fetch, args=(issuer, known), daemon=True)
            known.fetching.start()

    def _fetch(self, issuer: Issuer, known: _Keys) -> None:
        try:
            text = fetch(issuer.jwks)
            usable_keys(issuer, text)
        except (KeysError, DocumentError) as error:
            fault = error.message if isinstance(error, DocumentError) else str(error)
            self._end(issuer, known, fault=fault)
        else:
            self._end(issuer, known, jwks=text)

    def _end(self, issuer: Issuer, known: _Keys, *, jwks: str | None = None, fault: str = "") -> None:
        with self._lock:
            self._end_locked(issuer, known, jwks=jwks, fault=fault)

    def _end_locked(self, issuer: Issuer, known: _Keys, *, jwks: str | None, fault: str) -> None:
        if known.fetching is not threading.current_thread():
            # Nobody waits for it any more.
            return
        if fault and fault != known.fault:
            log.warning("keys not fetched", extra={"issuer": issuer.name, "url": issuer.jwks, "error": fault})
        if jwks is not None:
            if jwks != known.jwks:
                log.info("keys fetched", extra={"issuer": issuer.name, "url": issuer.jwks})
            known.jwks, known.shown_s = jwks, self._unix_s()
            self._keep(issuer, known)
        known.fault = fault
        known.due_s = self._clock() + (RETRY_S if fault else issuer.refresh_s)
        known.fetching = None

    def _path(self, issuer: Issuer) -> Path:
        return self._folder / f"keys-{issuer.name}.json"

    def _keep(self, issuer: Issuer, known: _Keys) -> None:
        kept = {"url": issuer.jwks, "jwks": known.jwks, "shown_s": known.shown_s}
        try:
            write_atomically(self._path(issuer), json.dumps(kept).encode())
        except OSError:
            log.exception("keys could not be kept", extra={"issuer": issuer.name})

    def _kept(self, issuer: Issuer) -> _Keys:
        """Those from before this process; none if there are none, or another URL's."""
        try:
            kept: Untyped = json.loads(self._path(issuer).read_text())
            if kept["url"] == issuer.jwks:
                return _Keys(str(kept["jwks"]), float(kept["shown_s"]))
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass
        return _Keys(None, 0.0)


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
