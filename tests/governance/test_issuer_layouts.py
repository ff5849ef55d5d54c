"""The bindings that docs/issuers.md shows, with tokens as those issuers make them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from governance.issuers import Issuer, derive, parse_issuers
from governance.words import Caller
from tests.docs.pages import blocks

PAGE = Path(__file__).parents[2] / "docs/issuers.md"


def shown(file: str) -> Issuer:
    [text] = [block.body for block in blocks(PAGE) if block.path == file]
    return parse_issuers(text).issuers[0]


def service_account(namespace: str, name: str) -> Mapping[str, object]:
    """The claims of a token that Kubernetes projects into a pod."""
    return {
        "aud": ["llmesh"],
        "iss": "https://kubernetes.default.svc.cluster.local",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": "0b6d"},
            "pod": {"name": f"{name}-5d8f", "uid": "9c0e"},
            "serviceaccount": {"name": name, "uid": "77aa"},
            "warnafter": 1767225600,
        },
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


@pytest.mark.parametrize(
    ("namespace", "name", "domain", "roles"),
    [
        pytest.param("support", "desk-assistant", "support", ("editor",), id="by its whole subject"),
        pytest.param("support", "crawler", "support", (), id="by its namespace"),
        pytest.param("engineering", "desk-assistant", "engineering", (), id="the same name in another namespace"),
        pytest.param("support-evil", "desk-assistant", "support-evil", (), id="a namespace that begins so"),
    ],
)
def test_a_service_account_is_of_its_namespaces_domain(
    namespace: str, name: str, domain: str, roles: tuple[str, ...]
) -> None:
    caller = derive(shown("issuers-kubernetes.yaml"), service_account(namespace, name))

    assert caller == Caller("cluster", f"system:serviceaccount:{namespace}:{name}", roles, domain)


def openid(**claims: object) -> Mapping[str, object]:
    """The claims of an access token as Keycloak makes them."""
    return {
        "iss": "https://login.acme.example/realms/staff",
        "aud": ["llmesh", "account"],
        "azp": "assistant",
        "typ": "Bearer",
        "scope": "openid profile",
        "sub": "f1b2",
        "preferred_username": "ana",
        "resource_access": {"account": {"roles": ["mesh-owner"]}},
        **claims,
    }


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({}, Caller("keycloak", "f1b2"), id="nothing that counts"),
        pytest.param(
            {"realm_access": {"roles": ["offline_access", "mesh-editor"]}, "groups": ["/everyone", "/support"]},
            Caller("keycloak", "f1b2", ("editor",), "support"),
            id="a role of the realm and a group",
        ),
        pytest.param(
            {"realm_access": {"roles": ["mesh-editor", "mesh-owner", "owner", "admin"]}},
            Caller("keycloak", "f1b2", ("editor", "owner")),
            id="only roles that are bound",
        ),
        pytest.param(
            {"groups": ["/support/second-line", "/privacy"]},
            Caller("keycloak", "f1b2", clearances=("pii",)),
            id="a group within another is another",
        ),
        pytest.param(
            {"https://acme.example/mesh": {"clearances": ["confidential"]}},
            Caller("keycloak", "f1b2", clearances=("confidential",)),
            id="a claim with dots in its name",
        ),
        pytest.param({"realm_access": ["mesh-owner"]}, Caller("keycloak", "f1b2"), id="roles in the wrong place"),
    ],
)
def test_roles_and_groups_of_openid_connect_are_bound_by_name(claims: Mapping[str, object], expected: Caller) -> None:
    assert derive(shown("issuers-oidc.yaml"), openid(**claims)) == expected


def test_the_page_shows_what_it_says_of_staff() -> None:
    caller = derive(shown("issuers.yaml"), {"sub": "auditor-7", "groups": ["support-desk", "editor"]})

    assert caller == Caller("staff", "auditor-7", ("support-desk", "editor"), "support", ("pii",))
