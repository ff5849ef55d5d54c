"""Whose bad tokens are counted together: an IPv4 address, and the first 64 bits of an IPv6 one."""

from __future__ import annotations

import pytest

from gateway.listener import floods
from tests.envoy import bearer, mesh, token

SERVICE = "acme.support.v1.Tickets"
# Takes the filter's place, with the filter's own reading of an address.
TELL = """
function envoy_on_request(handle)
  handle:headers():replace("network", network_of(handle:headers():get("connection-of")))
end
"""
NETWORKS = {
    "10.1.2.3:44": "10.1.2.3",
    "[2001:db8:1:2:3:4:5:6]:44": "2001:db8:1:2",
    "[2001:db8:1:2::6]:45": "2001:db8:1:2",
    "[2001:db8:1:3::6]:44": "2001:db8:1:3",
    "[2001:db8::6]:44": "2001:db8:0:0",
    "[2001::5:a:b:c:d]:44": "2001:0:0:5",
    "[2001:db8:1:2:3:4:5::]:44": "2001:db8:1:2",
    "[::1]:44": "0:0:0:0",
    "[::]:44": "0:0:0:0",
}


async def test_callers_of_one_network_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "SCRIPT", f"{floods.SCRIPT}\n{TELL}")
    async with mesh() as running:
        await running.publish(running.tool(SERVICE))
        signed_in = bearer(token())
        answers = {
            each: await running.call(f"/{SERVICE}/Get", (*signed_in, ("connection-of", each))) for each in NETWORKS
        }
    assert {each: answer.seen["network"] for each, answer in answers.items()} == NETWORKS
