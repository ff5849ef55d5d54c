"""The servicer of acme.testing.v1.Herald."""

from __future__ import annotations

from acme.testing.v1 import echo_pb2, herald_pb2
from acme.testing.v1.echo_pb2_grpc import EchoStub
from acme.testing.v1.herald_pb2_grpc import HeraldServicer as Base

import llmesh

__all__ = ["HeraldServicer"]


class HeraldServicer(Base):
    """Announces its callers to the echo."""

    async def Announce(self, request: herald_pb2.AnnounceRequest, context: object) -> herald_pb2.AnnounceResponse:
        """For the caller."""
        seen = await EchoStub(llmesh.current_call().mesh.channel).WhoAmI(echo_pb2.WhoAmIRequest())
        return herald_pb2.AnnounceResponse(subject=seen.subject)
