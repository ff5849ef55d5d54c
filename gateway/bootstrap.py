"""Envoy's static configuration, printed as JSON: `python -m gateway.bootstrap`.

Apart from the gateway, which serves much that this need not import: whoever starts the mesh waits for it.
"""

from __future__ import annotations

import argparse
import logging
import sys

from google.protobuf import json_format
from pydantic import ValidationError

from gateway.certificates import read_port, read_tools
from gateway.config import Config, read_config
from gateway.listener.bootstrap import Edge, bootstrap
from gateway.listener.operations import Operations
from gateway.listener.tracing import Traces
from gateway.policy import PolicyError, PolicyFiles, is_loopback
from gateway.xds.messages import pool
from llmesh.certificates import CertificateError
from llmesh.document import DocumentError
from llmesh.home import Home, HomeError
from llmesh.mesh_file import split_host_port

__all__ = ["add_settings", "policy_files", "why_not"]

# What a gateway cannot start with.
UNUSABLE = (HomeError, DocumentError, PolicyError, CertificateError, ValidationError)


def policy_files(config: Config) -> PolicyFiles:
    """The policy files of the mesh."""
    return PolicyFiles(config.policies, Home(config.home), development=is_loopback(config.host))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What leads to all other settings."""
    parser.add_argument("--home", default="", help="the mesh directory; default: LLMESH_HOME or .llmesh")
    parser.add_argument("--mesh-file", default="mesh.yaml", help="the mesh file")


def why_not(error: Exception) -> str:
    """What is wrong with that which a gateway cannot start with."""
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return str(error)


def main() -> None:
    """Print it, or end with why the gateway could not run with these settings."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bootstrap", description=__doc__)
    add_settings(parser)
    arguments = parser.parse_args()
    # Nothing else is logged before the mesh starts; the error itself is told.
    logging.getLogger("gateway").addHandler(logging.NullHandler())
    try:
        print(_json(read_config(arguments.home, arguments.mesh_file)))  # noqa: T201
    except UNUSABLE as error:
        sys.exit(f"gateway: {why_not(error)}")


def _json(config: Config) -> str:
    """Raises PolicyError if no policy could be in force, CertificateError if one cannot be used."""
    policy_files(config).load()
    if config.tls:
        read_port(config.tls)
    if config.tool_tls:
        read_tools(config.tool_tls)
    home = Home(config.home)
    edge = Edge(
        host=config.host,
        port=config.port,
        admin_socket=str(home.admin_socket),
        xds_socket=str(home.xds_socket),
        call_log=str(home.call_log),
        branches_socket=str(home.branches_socket),
        tls=config.tls is not None,
        operations=_operations(config, home),
        traces=_traces(config),
        limits=config.limits,
    )
    return json_format.MessageToJson(bootstrap(edge), descriptor_pool=pool(), preserving_proto_field_name=True)


def _operations(config: Config, home: Home) -> Operations | None:
    """The operations port, if there is to be one."""
    if not config.operations:
        return None
    return Operations(*split_host_port(config.operations), socket=str(home.operations_socket))


def _traces(config: Config) -> Traces | None:
    """Where traces go, if calls are to be traced."""
    if config.traces is None:
        return None
    return Traces(*split_host_port(config.traces.otlp), sample_percent=config.traces.sample_percent)


if __name__ == "__main__":
    main()
