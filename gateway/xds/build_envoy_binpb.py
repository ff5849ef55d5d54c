"""Build envoy.binpb: the descriptors of the Envoy messages that we use.

Run by `make xds` in a throwaway environment with the package xds-protos, whose
top-level modules (envoy, xds, validate, ...) must not be importable in ours.
Usage: python build_envoy_binpb.py envoy.binpb
"""

import importlib
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

ROOTS = (
    "envoy/config/bootstrap/v3/bootstrap",
    "envoy/config/trace/v3/opentelemetry",
    "envoy/extensions/access_loggers/file/v3/file",
    "envoy/extensions/access_loggers/filters/cel/v3/cel",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz",
    "envoy/extensions/filters/http/fault/v3/fault",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation",
    "envoy/extensions/filters/http/health_check/v3/health_check",
    "envoy/extensions/filters/http/jwt_authn/v3/config",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit",
    "envoy/extensions/filters/http/lua/v3/lua",
    "envoy/extensions/filters/http/rbac/v3/rbac",
    "envoy/extensions/filters/http/router/v3/router",
    "envoy/extensions/filters/network/connection_limit/v3/connection_limit",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs",
    "envoy/extensions/matching/input_matchers/metadata/v3/metadata",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections",
    "envoy/extensions/resource_monitors/fixed_heap/v3/fixed_heap",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts",
    "envoy/extensions/tracers/opentelemetry/samplers/v3/parent_based_sampler",
    "envoy/extensions/tracers/opentelemetry/samplers/v3/trace_id_ratio_based_sampler",
    "envoy/extensions/transport_sockets/tls/v3/tls",
    "envoy/extensions/upstreams/http/v3/http_protocol_options",
    "envoy/service/auth/v3/external_auth",
    "envoy/service/discovery/v3/discovery",
    "envoy/type/matcher/v3/http_inputs",
    "xds/type/matcher/v3/cel",
    "xds/type/matcher/v3/http_inputs",
)


def add(file: FileDescriptor, files: dict[str, bytes]) -> None:
    """Add a file after everything it imports."""
    if file.name in files:
        return
    for dependency in file.dependencies:
        add(dependency, files)
    files[file.name] = file.serialized_pb


def main() -> None:
    """Write the closure of ROOTS, each file after its imports."""
    files: dict[str, bytes] = {}
    for root in ROOTS:
        add(importlib.import_module(root.replace("/", ".") + "_pb2").DESCRIPTOR, files)
    closure = descriptor_pb2.FileDescriptorSet()
    for serialized in files.values():
        closure.file.add().ParseFromString(serialized)
    Path(sys.argv[1]).write_bytes(closure.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
