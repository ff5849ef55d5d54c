"""Keys that an issuer publishes: a real server that answers, or doesn't, as an issuer's might."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from joserfc.jwk import ECKey

from gateway import published_keys
from gateway.policy import POLL_S
from gateway.published_keys import BELIEVED_S, MAX_BYTES, RETRY_S, KeysError, PublishedKeys
from governance.issuers import Issuer, parse_issuers
from llmesh.document import DocumentError
from tests.envoy import ISSUERS, JWKS
from tests.eventually import eventually
from tests.gateway.fakes import FakeClock
from tests.gateway.policy_files import Folder
from tests.key_site import KeySite, key_site
from tests.pki import Authority

OTHER_JWKS = json.dumps(
    {"keys": [ECKey.generate_key("P-256", parameters={"kid": "two", "alg": "ES256"}).as_dict(private=False)]}
)


@pytest.fixture
def site() -> Iterator[KeySite]:
    with key_site(JWKS.encode()) as made:
        yield made


class Now:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def issuer_at(url: str) -> Issuer:
    return parse_issuers(ISSUERS.replace("corp.jwks.json", url)).issuers[0]


async def test_keys_are_fetched_and_fetched_again_when_it_is_time(site: KeySite, tmp_path: Path) -> None:
    now, issuer = Now(), issuer_at(site.url)
    keys = PublishedKeys(tmp_path, clock=now)
    assert keys.jwks(issuer) == JWKS

    site.body = OTHER_JWKS.encode()
    now.at_s += issuer.refresh_s - 1
    assert (keys.jwks(issuer), len(site.asked)) == (JWKS, 1)
    now.at_s += 1

    async def came() -> None:
        assert keys.jwks(issuer) == OTHER_JWKS

    await eventually(came)
    assert (len(site.asked), keys.faults([issuer])) == (2, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"code": 503}, "it answers 503", id="down"),
        pytest.param({"code": 302, "headers": {"location": "http://127.0.0.1:1/"}}, "it answers 302", id="a redirect"),
        pytest.param({"body": b"{}"}, "not a JWKS", id="no keys"),
        pytest.param({"body": b'{"keys": []}'}, "no key has an `alg` of ES256", id="no key left"),
        pytest.param({"body": b'{"keys": [{"kty": "oct", "k": "AA"}]}'}, "private or shared", id="a secret"),
        pytest.param({"body": b"[" * 100_000}, "not a JWKS", id="deep"),
        pytest.param({"body": b"\xff"}, "not UTF-8", id="no text"),
        pytest.param({"body": b" " * (MAX_BYTES + 1)}, f"more than {MAX_BYTES} bytes", id="large"),
    ],
)
async def test_what_is_no_use_leaves_the_keys_from_before(
    site: KeySite, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    now, issuer = Now(), issuer_at(site.url)
    keys = PublishedKeys(tmp_path, clock=now)
    assert keys.jwks(issuer) == JWKS

    for name, value in change.items():
        setattr(site, name, value)
    now.at_s += issuer.refresh_s

    async def failed() -> None:
        assert keys.jwks(issuer) == JWKS
        words = " ".join(keys.faults([issuer]))
        assert words.startswith(f"the keys of issuer `corp` cannot be had from {site.url}: ")
        assert said in words

    await eventually(failed)
    assert site.asked == ["/keys"] * 2

    # And once it answers again, all is well.
    site.code, site.headers, site.body = 200, {}, OTHER_JWKS.encode()
    now.at_s += RETRY_S

    async def mended() -> None:
        assert (keys.jwks(issuer), keys.faults([issuer])) == (OTHER_JWKS, [])

    await eventually(mended)


def test_without_any_keys_it_says_from_where_they_cannot_be_had(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(KeysError, match=rf"keys of issuer `corp` .* http://127\.0\.0\.1:{port}/keys: .*refused"):
        PublishedKeys(tmp_path).jwks(issuer_at(f"http://127.0.0.1:{port}/keys"))


def test_a_server_that_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_keys, "SILENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        with pytest.raises(KeysError, match="timed out"):
            PublishedKeys(tmp_path).jwks(issuer_at(url))


def test_an_answer_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    now = Now()
    keys = PublishedKeys(tmp_path, clock=now)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = issuer_at(f"http://127.0.0.1:{silent.getsockname()[1]}/keys")
        known = published_keys._Keys(JWKS, time.time())  # pyright: ignore[reportPrivateUsage]
        keys._known["corp", issuer.jwks] = known  # pyright: ignore[reportPrivateUsage]
        assert keys.jwks(issuer) == JWKS
        now.at_s += 2 * published_keys.FETCH_S + 1
        assert keys.jwks(issuer) == JWKS
    assert ["the answer does not end" in words for words in keys.faults([issuer])] == [True]


async def test_keys_that_their_issuer_has_not_shown_for_a_day_are_believed_no_more(
    site: KeySite, tmp_path: Path
) -> None:
    now, today = Now(), Now()
    folder = Folder.make(tmp_path)
    folder.write("issuers.yaml", ISSUERS.replace("corp.jwks.json", site.url))
    issuer, kept = issuer_at(site.url), folder.home.state
    assert PublishedKeys(kept, clock=now, unix_s=today).jwks(issuer) == JWKS

    site.code = 503
    today.at_s += BELIEVED_S
    keys = PublishedKeys(kept, clock=now, unix_s=today)
    assert keys.jwks(issuer) == JWKS
    today.at_s += 1
    assert keys.jwks(issuer) == ""

    async def told() -> None:
        assert [words.rpartition("; ")[2] for words in keys.faults([issuer])] == [
            "its tokens are refused, as it has not shown its keys for a day"
        ]

    await eventually(told)
    # As a policy has it: a key of which nobody has the private part.
    files = folder.files()
    files._published = keys  # pyright: ignore[reportPrivateUsage]
    assert [key["kid"] for key in json.loads(files.load().policy.keys["corp"])["keys"]] == ["nobody"]

    site.code = 200
    now.at_s += RETRY_S

    async def back() -> None:
        assert keys.jwks(issuer) == JWKS

    await eventually(back)


class _Unwaited(threading.Thread):
    def join(self, timeout: float | None = None) -> None:
        raise AssertionError("waited again")


def test_an_issuer_that_never_answers_holds_nobody_up_twice(tmp_path: Path) -> None:
    keys = PublishedKeys(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = issuer_at(f"http://127.0.0.1:{silent.getsockname()[1]}/keys")
        with pytest.raises(KeysError, match="no answer yet"):
            keys.jwks(issuer, wait_s=0.01)
        keys._known["corp", issuer.jwks].fetching = _Unwaited()  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(KeysError, match="no answer yet"):
            keys.jwks(issuer)


@pytest.mark.parametrize("wrong", ["mesh.yaml", "issuers.yaml"])
async def test_keys_change_while_a_file_is_wrong(site: KeySite, tmp_path: Path, wrong: str) -> None:
    now, clock = Now(), FakeClock()
    folder = Folder.make(tmp_path)
    folder.write("issuers.yaml", ISSUERS.replace("corp.jwks.json", site.url))
    files = folder.files()
    files._published = PublishedKeys(folder.home.state, clock=now)  # pyright: ignore[reportPrivateUsage]
    async with aclosing(files.watch(clock)) as policies:
        assert json.loads((await anext(policies)).policy.keys["corp"])["keys"][0]["kid"] == "one"
        folder.write(wrong, "version: what")
        site.body = OTHER_JWKS.encode()
        now.at_s += issuer_at(site.url).refresh_s
        newer = asyncio.ensure_future(anext(policies))

        async def come() -> None:
            await clock.pass_(POLL_S)
            assert newer.done()

        await eventually(come)
        assert json.loads((await newer).policy.keys["corp"])["keys"][0]["kid"] == "two"
        assert wrong in files.error


def test_another_process_begins_with_the_keys_from_before(site: KeySite, tmp_path: Path) -> None:
    issuer = issuer_at(site.url)
    assert PublishedKeys(tmp_path).jwks(issuer) == JWKS

    site.code = 503
    assert PublishedKeys(tmp_path).jwks(issuer) == JWKS
    with pytest.raises(KeysError, match="503"):
        PublishedKeys(tmp_path).jwks(issuer_at(f"{site.url}/elsewhere"))


def test_a_server_whose_certificate_nobody_vouches_for_has_no_keys(tmp_path: Path) -> None:
    certificate, key = Authority().issue("localhost").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(KeysError, match="certificate verify failed"):
                PublishedKeys(tmp_path).jwks(issuer_at(f"https://localhost:{server.server_port}/keys"))
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("http://corp.example/keys", "expected https://", id="in the clear"),
        pytest.param("http://127.0.0.1.evil.example/keys", "expected https://", id="no loopback"),
        pytest.param("http://127.0.0.1@evil.example/keys", "no password", id="a password"),
        pytest.param("file:///etc/passwd", "expected https://", id="a file"),
        pytest.param("ftp://127.0.0.1/keys", "expected https://", id="another scheme"),
        pytest.param("https:///keys", "expected https://", id="no host"),
    ],
)
def test_only_https_and_loopback_are_asked(url: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        issuer_at(url)


def test_a_policy_has_the_keys_that_its_issuers_publish(site: KeySite, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path)
    folder.write("issuers.yaml", ISSUERS.replace("corp.jwks.json", site.url))

    files = folder.files()
    assert json.loads(files.load().policy.keys["corp"])["keys"][0]["kid"] == "one"
    assert (files.error, files.stale_keys) == ("", [])


def test_a_new_issuer_whose_keys_cannot_be_had_leaves_the_last_good_policy(tmp_path: Path, site: KeySite) -> None:
    folder = Folder.make(tmp_path)
    files = folder.files()
    good = files.load()
    site.code = 404
    folder.write("issuers.yaml", ISSUERS.replace("corp.jwks.json", site.url))

    assert files.load() == good
    assert "it answers 404" in files.error


def test_keys_whose_age_nobody_knows_are_not_believed(site: KeySite, tmp_path: Path) -> None:
    folder = Folder.make(tmp_path)
    folder.write("issuers.yaml", ISSUERS.replace("corp.jwks.json", site.url))
    folder.files().load()
    (folder.home.state / "keys-corp.json").unlink()
    site.code = 503

    started = folder.files()

    assert [key["kid"] for key in json.loads(started.load().policy.keys["corp"])["keys"]] == ["nobody"]
    assert "it answers 503" in started.error
