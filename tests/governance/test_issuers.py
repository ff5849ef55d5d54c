from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from governance.issuers import GRANT, Issuer, derive, parse_issuers, usable_keys
from governance.words import Caller
from llmesh.document import DocumentError

HEAD = """
version: 1
issuers:
- name: corp
  issuer: https://corp.example
  jwks: corp.jwks.json
  audiences: [llmesh]
  algorithms: [ES256]
  max_lifetime_s: 3600
  bindings:
"""
BINDINGS = (
    "{claim: roles, grants: role}",
    "{claim: realm.access.roles, grants: role}",
    "{claim: groups, has: llm-editors, grants: role, value: editor}",
    "{claim: mfa, grants: role, value: strong}",
    "{claim: [https://acme.example/app, roles], grants: role}",
    "{subject: robot-*, grants: role, value: robot}",
    "{subject: root, grants: role, value: owner}",
    "{claim: department, grants: domain}",
    "{claim: clearances, grants: clearance}",
)


def issuer_with(*bindings: str) -> Issuer:
    return parse_issuers(HEAD + "\n".join(f"  - {binding}" for binding in bindings)).issuers[0]


CORP = issuer_with(*BINDINGS)


def roles_of(claims: Mapping[str, object]) -> tuple[str, ...]:
    return derive(CORP, {"sub": "sam", **claims}).roles


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        pytest.param({"roles": ["a", "b"]}, ("a", "b"), id="a list as it stands"),
        pytest.param({"roles": "a"}, ("a",), id="one text"),
        pytest.param({"roles": ["b", "a", "b"]}, ("b", "a"), id="each once, in order"),
        pytest.param({"realm": {"access": {"roles": ["deep"]}}}, ("deep",), id="inside objects"),
        pytest.param({"realm": ["access"]}, (), id="a list where an object is expected"),
        pytest.param({"realm": {"access": None}}, (), id="null where an object is expected"),
        pytest.param({"realm.access.roles": ["deep"]}, (), id="dots go into objects only"),
        pytest.param({"https://acme.example/app": {"roles": ["app"]}}, ("app",), id="a name with dots, in a list"),
        pytest.param({"groups": ["x", "llm-editors"]}, ("editor",), id="a group maps to a role"),
        pytest.param({"groups": "llm-editors"}, ("editor",), id="the group as one text"),
        pytest.param({"groups": "llm-editors,x"}, (), id="never by part of a text"),
        pytest.param({"groups": {"llm-editors": True}}, (), id="a key of an object is no member"),
        pytest.param({"groups": [["llm-editors"]]}, (), id="nor a member of a member"),
        pytest.param({"mfa": "totp"}, ("strong",), id="any text of the claim"),
        pytest.param({"mfa": True}, (), id="true is no text"),
        pytest.param({"mfa": []}, (), id="an empty list holds no text"),
        pytest.param({"mfa": None}, (), id="nor does null"),
        pytest.param(
            {"roles": ["a", "b"], "groups": ["llm-editors"], "mfa": "x"}, ("a", "b", "editor", "strong"), id="all"
        ),
        pytest.param({}, (), id="nothing"),
    ],
)
def test_bindings_grant(claims: Mapping[str, object], roles: tuple[str, ...]) -> None:
    assert roles_of(claims) == roles


@pytest.mark.parametrize(
    ("subject", "roles"),
    [
        pytest.param("robot-7", ("robot",), id="a prefix"),
        pytest.param("robot-", ("robot",), id="the prefix itself"),
        pytest.param("a-robot-7", (), id="not in the middle"),
        pytest.param("Robot-7", (), id="exact letters"),
        pytest.param("root", ("owner",), id="one subject"),
        pytest.param("root2", (), id="not those that begin so"),
    ],
)
def test_subjects_grant(subject: str, roles: tuple[str, ...]) -> None:
    assert derive(CORP, {"sub": subject}).roles == roles


# Values that a token can hold and that must grant nothing.
HOSTILE = {
    "null": None,
    "number": 7,
    "fraction": 0.5,
    "true": True,
    "object": {"owner": "owner"},
    "list of lists": [["owner"]],
    "list of objects": [{"role": "owner"}],
    "list of numbers and nulls": [1, None, False],
    "empty": "",
    "comma": "a,owner",
    "CR LF": "a\r\nx-llmesh-roles: owner",
    "NUL": "owner\x00",
    "tab": "a\towner",
    "space": " owner",
    "10 kB": "a" * 10_240,
    "129 bytes": "a" * 129,
    "other letters": "öwner",
    "emoji": "😀",
    "lone surrogate": "\ud800",
    "line separator": "owner\u2028",
    "quote": 'a"owner',
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in HOSTILE.items()])
def test_what_is_not_plain_text_grants_nothing(value: object) -> None:
    claims = {"sub": "sam", "roles": value, "department": value, "clearances": value}

    assert derive(CORP, claims) == Caller("corp", "sam")


def test_good_values_beside_bad_ones_are_granted() -> None:
    assert roles_of({"roles": ["a", None, 5, "b,c", "d"]}) == ("a", "d")


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(None, id="null"),
        pytest.param(5, id="number"),
        pytest.param(["sam"], id="list"),
        pytest.param({"sam": 1}, id="object"),
        pytest.param("", id="empty"),
        pytest.param("sam\r\nx: y", id="CR LF"),
        pytest.param("sam\x00", id="NUL"),
        pytest.param("sam\x7f", id="DEL"),
        pytest.param("s" * 257, id="too long"),
        pytest.param("😀" * 65, id="too many bytes"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param(" sam", id="leading space"),
        pytest.param("sam ", id="trailing space"),
    ],
)
def test_an_unusable_subject_makes_nobody(subject: object) -> None:
    assert derive(CORP, {"sub": subject, "roles": ["owner"], "department": "support"}) == Caller()


def test_no_subject_makes_nobody() -> None:
    assert derive(CORP, {"roles": ["owner"]}) == Caller()


def test_an_odd_but_usable_subject_is_kept_as_it_is() -> None:
    for subject in ("auth0|5f7c", "Jürgen Ü", "a,b", "s" * 256, "😀" * 64):
        assert derive(CORP, {"sub": subject}).subject == subject


def test_the_first_domain_granted_is_the_callers() -> None:
    assert derive(CORP, {"sub": "sam", "department": ["sales", "support"]}).domain == "sales"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["sub", "roles", "realm", "groups", "mfa", "department", "clearances"])


@given(st.dictionaries(names, json_values))
def test_no_claims_break_it_and_every_grant_is_plain(claims: dict[str, object]) -> None:
    caller = derive(CORP, claims)

    assert all(GRANT.fullmatch(grant) for grant in (*caller.roles, *caller.clearances))
    assert caller.domain == "" or GRANT.fullmatch(caller.domain)
    assert caller.subject or caller == Caller()


def public(alg: str | None = "ES256") -> dict[str, object]:
    return dict(ECKey.generate_key("P-256", parameters={"alg": alg} if alg else {}).as_dict(private=False))


def test_public_keys_of_the_issuers_algorithms_are_used() -> None:
    key, secret = public(), {**public(), "use": "enc"}

    assert json.loads(usable_keys(CORP, json.dumps({"keys": [secret, key, public("ES384")]}))) == {"keys": [key]}


def test_a_key_without_an_algorithm_is_for_the_one_that_it_can_be_for() -> None:
    key, either = public(None), {name: value for name, value in RSA.items() if name != "alg"}

    assert json.loads(usable_keys(CORP, json.dumps({"keys": [key]}))) == {"keys": [{**key, "alg": "ES256"}]}
    # RS256 and PS256 have the same keys.
    assert json.loads(usable_keys(ANY, json.dumps({"keys": [key, either]}))) == {"keys": [{**key, "alg": "ES256"}]}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        pytest.param(
            [ECKey.generate_key("P-256", parameters={"alg": "ES256"}).as_dict(private=True)], "private", id="EC"
        ),
        pytest.param(
            [RSAKey.generate_key(2048, parameters={"alg": "RS256"}).as_dict(private=True)], "private", id="RSA"
        ),
        pytest.param(
            [OctKey.generate_key(256, parameters={"alg": "HS256"}).as_dict(private=True)], "shared", id="shared"
        ),
        pytest.param([public(), {"kty": "oct", "k": "AA", "alg": "HS256"}], "shared", id="one among others"),
        pytest.param([public("ES384")], "no key has an `alg` of ES256", id="another algorithm"),
        pytest.param([{"kty": "RSA", "n": "AQAB"}], "no key has an `alg` of ES256", id="no algorithm that it could be"),
        pytest.param([{**public(), "use": "enc"}], "no key has an `alg` of ES256", id="for no signatures"),
        pytest.param([], "no key", id="none"),
        pytest.param([5], "not a JWKS", id="numbers"),
        pytest.param(["d"], "not a JWKS", id="texts"),
        pytest.param({"a": 1}, "not a JWKS", id="object"),
        pytest.param(5, "not a JWKS", id="number"),
        pytest.param(None, "not a JWKS", id="null"),
    ],
)
def test_other_keys_are_refused(keys: object, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        usable_keys(CORP, json.dumps({"keys": keys}))


RSA: dict[str, object] = dict(RSAKey.generate_key(2048, parameters={"alg": "RS256"}).as_dict(private=False))
SMALL_RSA: dict[str, object] = {**RSA, "n": base64.urlsafe_b64encode(b"\xc1" * 128).decode().rstrip("=")}
EDWARDS: dict[str, object] = dict(OKPKey.generate_key("Ed25519", parameters={"alg": "EdDSA"}).as_dict(private=False))
ANY = CORP.model_copy(update={"algorithms": ["ES256", "ES384", "RS256", "PS256", "EdDSA"]})


def test_a_key_of_each_algorithm_is_used() -> None:
    larger = dict(ECKey.generate_key("P-384", parameters={"alg": "ES384"}).as_dict(private=False))
    keys = [public(), larger, RSA, {**RSA, "alg": "PS256"}, EDWARDS]

    assert json.loads(usable_keys(ANY, json.dumps({"keys": keys}))) == {"keys": keys}


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param({**public(), "x": "AAAA"}, "not on the curve", id="a number cut short"),
        pytest.param({**public(), "x": "%"}, "ES256: ", id="a number that is no base64"),
        pytest.param({**public(), "x": 5}, "must be a str", id="a number as such"),
        pytest.param({**public(), "y": None}, "'y' ", id="a number that is null"),
        pytest.param({"kty": "EC", "alg": "ES256", "crv": "P-256"}, "'x' is required", id="no numbers"),
        pytest.param({"alg": "ES256"}, "`kty` must be EC", id="only an algorithm"),
        pytest.param({**RSA, "alg": "ES256"}, "`kty` must be EC", id="of another kind"),
        pytest.param({**public(), "crv": "P-999"}, "`crv` must be P-256", id="of no curve"),
        pytest.param({**public(), "alg": "ES384"}, "`crv` must be P-384", id="of another curve"),
        pytest.param({**public(), "kid": 5}, "'kid' must be a str", id="a name that is no text"),
        pytest.param({**RSA, "n": "AQAB"}, "RS256: ", id="RSA without size"),
        pytest.param(SMALL_RSA, "has 1024 bits", id="small RSA"),
        pytest.param({**RSA, "e": "AQAAAAAB"}, "more than 33 bits", id="RSA of a large exponent"),
        pytest.param({**EDWARDS, "x": "AAAA"}, "32 bytes", id="EdDSA cut short"),
    ],
)
def test_a_key_that_envoy_could_not_use_is_refused_and_said_which(key: dict[str, object], said: str) -> None:
    with pytest.raises(DocumentError, match=rf"key 2 is no key for .*{said}"):
        usable_keys(ANY, json.dumps({"keys": [public(), key]}))


@given(st.dictionaries(st.sampled_from(["kid", "use", "key_ops", "x", "y", "crv", "n", "e", "x5c"]), json_values))
def test_no_key_breaks_it(changed: dict[str, object]) -> None:
    for key in (public(), RSA, EDWARDS):
        with contextlib.suppress(DocumentError):
            usable_keys(ANY, json.dumps({"keys": [{**key, **changed}]}))


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{", '{"key": []}'])
def test_what_is_no_jwks_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="not a JWKS"):
        usable_keys(CORP, text)


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        pytest.param("{grants: role, value: a}", "either a `claim` or the `subject`", id="reads nothing"),
        pytest.param("{claim: a, subject: b, grants: role, value: a}", "either a `claim`", id="reads both"),
        pytest.param("{claim: a, has: b, grants: role}", "needs the `value`", id="has without value"),
        pytest.param("{subject: a, grants: role}", "needs the `value`", id="subject without value"),
        pytest.param("{claim: a, grants: rolle}", "'role', 'domain' or 'clearance'", id="grants what is unknown"),
        pytest.param("{claim: a, grants: role, value: 'a,b'}", "match pattern", id="value with a comma"),
        pytest.param("{clam: a, grants: role}", "did you mean `claim`?", id="unknown key"),
    ],
)
def test_a_binding_that_makes_no_sense_is_refused(binding: str, said: str) -> None:
    with pytest.raises(DocumentError) as refused:
        issuer_with(binding)

    assert said in refused.value.message
    assert refused.value.line == 11


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param("audiences: [llmesh]", "audiences: []", "at least 1", id="no audience"),
        pytest.param("  audiences: [llmesh]\n", "", "required", id="audience missing"),
        pytest.param("[ES256]", "[HS256]", "'ES256'", id="shared-key algorithm"),
        pytest.param("[ES256]", "[none]", "'ES256'", id="no algorithm"),
        pytest.param("3600", "0", "greater than 0", id="no lifetime"),
        pytest.param("3600", "99999999", "less than or equal", id="endless lifetime"),
    ],
)
def test_an_issuer_must_be_strict(before: str, after: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        parse_issuers(HEAD.replace(before, after) + f"  - {BINDINGS[0]}")


def test_two_issuers_cannot_be_mistaken_for_one_another() -> None:
    entry = HEAD.split("issuers:\n")[1].replace("  bindings:\n", "")
    with pytest.raises(DocumentError, match="two issuers have the same `name`"):
        parse_issuers(f"version: 1\nissuers:\n{entry}{entry.replace('corp.example', 'other.example')}")
    with pytest.raises(DocumentError, match="two issuers have the same `issuer`"):
        parse_issuers(f"version: 1\nissuers:\n{entry}{entry.replace('name: corp', 'name: other')}")
