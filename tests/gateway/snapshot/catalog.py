"""A small fixed catalog and policy, and its snapshot as readable JSON.

`python -m tests.gateway.snapshot.catalog` writes the golden file anew, from
the root of the repository: look at the difference before it is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any as Untyped

from google.protobuf import json_format

from gateway.catalog import Contract, Endpoint, Method, Tool
from gateway.listener.bootstrap import Edge, bootstrap
from gateway.snapshot.build import Policy, Resources, build
from gateway.xds.messages import message_type, pool
from governance.bundle import parse_bundle
from governance.issuers import parse_issuers
from llmesh.api.options.v1 import options_pb2 as options

GOLDEN = Path(__file__).with_name("golden")
EDGE = Edge("127.0.0.1", 8700, "/run/admin.sock", "/run/xds.sock", "/logs/calls.jsonl", "/run/branches.sock")
TICKETS, DOCS = "acme.support.v1.Tickets", "acme.engineering.v1.DocSearch"

MESH = """
version: 1
rules:
- {id: reads, effect: permit, reason: everyone reads, applies: {effects: [read]}}
- id: writes
  effect: permit
  when: caller.domain == tool.domain && ('editor' in caller.roles || 'owner' in caller.roles)
  reason: editors of the domain write
"""
SUPPORT = """
version: 1
domain: support
default: inherit
rules:
- id: personal
  effect: forbid
  when: "'pii' in tool.data_classes && !('pii' in caller.clearances)"
  reason: personal data needs the clearance pii
"""
ISSUERS = """
version: 1
issuers:
- name: corp
  issuer: https://corp.example
  jwks: corp.jwks.json
  audiences: [llmesh]
  algorithms: [ES256]
  max_lifetime_s: 3600
  bindings:
  - {claim: realm.roles, grants: role}
  - {claim: groups, has: editors, grants: role, value: editor}
  - {subject: robot-*, grants: domain, value: support}
"""


def policy(mesh: str = MESH, support: str = SUPPORT) -> Policy:
    """The policy, or one with other texts."""
    bundle = parse_bundle(mesh, {"domains/support.yaml": support})
    return Policy(bundle, parse_issuers(ISSUERS), {"corp": '{"keys": []}'})


def method(name: str, effect: int, **changed: Untyped) -> Method:
    """A method; unary, 30 s, not idempotent unless said otherwise."""
    facts: dict[str, Untyped] = {
        "request_type": "acme.Request",
        "response_type": "acme.Response",
        "client_streaming": False,
        "server_streaming": False,
        "effect": effect,
        "idempotent": effect == options.EFFECT_READ,
        "deadline": timedelta(seconds=30),
        "idle": None,
        "max_concurrency": 0,
        "data_classes": (),
        "unclassified": False,
        "options": options.Method(),
    }
    return Method(name, **(facts | changed))


def tools() -> dict[str, Tool]:
    """A tool on a Unix socket with every kind of method, and a hidden foreign one over TCP, health-checked."""
    near = Endpoint("unix:/run/tools/tickets-1.sock", "lease")
    far, down = Endpoint("10.0.0.7:9000", "file"), Endpoint("[::1]:9001", "file")
    return {
        TICKETS: Tool(
            TICKETS,
            "support",
            options.Tool(name="Tickets", labels={"language": "en", "tier": "gold", "a": "b"}),
            (
                method("Get", options.EFFECT_READ, data_classes=("pii",), max_concurrency=16),
                method("Close", options.EFFECT_WRITE, deadline=timedelta(seconds=1, milliseconds=500)),
                method(
                    "Follow",
                    options.EFFECT_READ,
                    server_streaming=True,
                    deadline=timedelta(hours=1),
                    idle=timedelta(minutes=5),
                ),
                method("Delete", options.EFFECT_DESTRUCTIVE),
            ),
            Contract("d1", ()),
            (near,),
            frozenset([near]),
        ),
        DOCS: Tool(
            DOCS,
            "engineering",
            options.Tool(name="Docs", hidden=True),
            (method("Find", options.EFFECT_READ),),
            Contract("d2", ()),
            (far, down),
            frozenset([far]),
            health_checked=True,
        ),
    }


def as_json(resources: Resources) -> Mapping[str, Untyped]:
    """Short type name -> resource name -> its JSON, nested messages opened."""
    return {
        url.rpartition(".")[2]: {
            name: _opened(message_type(url.rpartition("/")[2]).FromString(resource.value))
            for name, resource in sorted(by_name.items())
        }
        for url, by_name in sorted(resources.items())
    }


def _opened(message: Untyped) -> Untyped:
    return json_format.MessageToDict(message, descriptor_pool=pool(), preserving_proto_field_name=True)


def golden_files() -> Mapping[str, str]:
    """File name -> what it should hold."""
    documents = {"snapshot.json": as_json(build(tools(), policy())), "bootstrap.json": _opened(bootstrap(EDGE))}
    return {name: json.dumps(found, indent=1, sort_keys=True) + "\n" for name, found in documents.items()}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for file_name, text in golden_files().items():
        (GOLDEN / file_name).write_text(text)
