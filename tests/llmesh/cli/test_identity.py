"""Signing in, and the tokens that come of it."""

from __future__ import annotations

import json
import stat
import time

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from llmesh.home import Home
from llmesh.identity import DevCaller, DevIssuer, Logins
from tests.llmesh.cli.command import Command


def claims_of(token: str) -> dict[str, object]:
    keys = KeySet.import_key_set(json.loads(Home.find().dev_jwks.read_bytes()))
    return jwt.decode(token, keys, algorithms=["ES256"]).claims


def test_a_token_says_what_the_login_said(command: Command) -> None:
    login = (
        "login",
        "--as",
        "ana",
        "--role",
        "support.editor",
        "--role",
        "reader",
        "--domain",
        "support",
        "--clearance",
        "pii",
    )
    assert command(*login).code == 0
    claims = claims_of(command("token").out.strip())
    assert claims["iss"] == "https://dev.llmesh.local"
    assert claims["aud"] == "llmesh"
    assert (claims["sub"], claims["domain"]) == ("ana", "support")
    assert (claims["roles"], claims["clearances"]) == (["support.editor", "reader"], ["pii"])
    assert claims["exp"] == int(str(claims["iat"])) + 3600
    assert abs(int(str(claims["iat"])) - time.time()) < 60


def test_a_token_lives_as_long_as_asked(command: Command) -> None:
    command("login", "--as", "ana")
    answer = command("token", "--lifetime", "60", "--json").json
    claims = claims_of(answer["token"])
    assert claims["exp"] == int(str(claims["iat"])) + 60
    assert (answer["subject"], answer["lifetime_s"]) == ("ana", 60)


def test_no_token_lives_longer_than_the_issuer_may_grant(command: Command) -> None:
    command("login", "--as", "ana")
    assert command("token", "--lifetime", "43201").code == 2


def test_the_last_to_sign_in_is_current_and_others_can_be_named(command: Command) -> None:
    command("login", "--as", "ana")
    command("login", "--as", "bo")
    assert claims_of(command("token").out.strip())["sub"] == "bo"
    assert claims_of(command("token", "--as", "ana").out.strip())["sub"] == "ana"


def test_signing_in_again_by_name_alone_keeps_roles(command: Command) -> None:
    command("login", "--as", "ana", "--role", "owner")
    command("login", "--as", "bo")
    assert command("login", "--as", "ana", "--json").json["roles"] == ["owner"]
    assert command("login", "--json").json == {"name": "ana", "roles": ["owner"], "domain": "", "clearances": []}


def test_tokens_differ_though_the_second_is_the_same(command: Command) -> None:
    command("login", "--as", "ana")
    assert command("token").out != command("token").out


def test_secrets_are_their_owners_alone(command: Command) -> None:
    command("login", "--as", "ana")
    home = Home.find()
    for path in (home.dev_key, home.login):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "d" not in json.loads(home.dev_jwks.read_bytes())["keys"][0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--as", " ana"), "nobody can be called ' ana'"),
        (("--as", "a\nb"), "nobody can be called 'a\\nb'"),
        (("--as", "é" * 129), "nobody can be called 'é"),
        (("--as", "\udce9"), "nobody can be called '\\udce9'"),
        (("--as", "ana", "--role", "editor,owner"), "'editor,owner' can be no role"),
        (("--as", "ana", "--role", ""), "'' can be no role"),
        (("--as", "ana", "--domain", "my domain"), "'my domain' can be no domain"),
        (("--as", "ana", "--clearance", "p" * 129), f"'{'p' * 129}' can be no clearance"),
    ],
)
def test_what_the_mesh_would_drop_is_refused_at_the_login(command: Command, args: tuple[str, ...], said: str) -> None:
    answer = command("login", *args)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error: {said}")
    assert "nobody is signed in" in command("token").err


def test_a_name_may_be_anything_that_the_mesh_takes(command: Command) -> None:
    assert command("login", "--as", "Zoë de la Cruz", "--role", "a.b:c@d/e+f-g").code == 0


def test_nobody_signed_in_is_told_to(command: Command) -> None:
    answer = command("token")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == ("error: nobody is signed in\n  sign in first: llmesh login --as NAME --role ROLE\n")


def test_a_stranger_is_told_to_sign_in(command: Command) -> None:
    command("login", "--as", "ana")
    assert "`bo` has never signed in here" in command("token", "--as", "bo").err


@pytest.mark.parametrize("content", ["{", "[]", '{"current": "x"}', '{"current": "x", "callers": {"x": {}}}'])
def test_a_damaged_login_file_is_named(command: Command, content: str) -> None:
    command("login", "--as", "ana")
    Home.find().login.write_text(content)
    answer = command("token")
    assert answer.code == 1
    assert f"`{Home.find().login}` is damaged" in answer.err


def test_the_key_outlives_the_process_and_its_public_half_is_put_right(command: Command) -> None:
    command("login", "--as", "ana")
    home = Home.find()
    token = DevIssuer.open(home).mint(DevCaller("ana"))
    home.dev_jwks.write_text("{}")
    again = DevIssuer.open(home)
    assert claims_of(token)["sub"] == "ana"
    assert claims_of(again.mint(DevCaller("bo"), now_s=time.time()))["sub"] == "bo"


def test_who_makes_the_key_second_uses_the_first(command: Command) -> None:
    command("login", "--as", "ana")
    home = Home.find()
    first = home.dev_key.read_bytes()
    DevIssuer.open(home)
    assert home.dev_key.read_bytes() == first
    assert {path.name for path in home.keys.iterdir()} == {"dev.key.pem", "dev.jwks.json"}


def test_logins_are_kept_as_they_were(command: Command) -> None:
    command("login", "--as", "ana", "--role", "a", "--domain", "d", "--clearance", "c")
    assert Logins.load(Home.find()).get() == DevCaller("ana", ("a",), "d", ("c",))
