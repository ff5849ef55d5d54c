"""A tool that fails as it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events


@dataclass(slots=True)
class Tool:
    """A tool below gRPC that does as each call's `x-order` says: a code, `reset`, `silence`, or nothing: answer well.

    served: how many calls were answered well. paths: those of all calls.
    """

    served: int = 0
    paths: list[bytes] = field(default_factory=list[bytes])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        orders: dict[int, str] = {}
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                match event:
                    case h2.events.RequestReceived(headers=found, stream_id=stream):
                        fields = dict(found or ())
                        self.paths.append(bytes(fields[b":path"]))
                        orders[stream or 0] = fields.get(b"x-order", b"").decode()
                    case h2.events.StreamEnded(stream_id=stream):
                        self._obey(connection, stream or 0, orders[stream or 0])
                    case _:
                        pass
            writer.write(connection.data_to_send())
        writer.close()

    def _obey(self, connection: h2.connection.H2Connection, stream: int, order: str) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        match order:
            case "reset":
                connection.reset_stream(stream, 2)
            case "silence":
                pass
            case "":
                self.served += 1
                connection.send_headers(stream, head)
                connection.send_data(stream, bytes(5))
                connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
            case code:
                connection.send_headers(stream, [*head, ("grpc-status", code)], end_stream=True)
