"""From the catalog's values to the messages of catalog.proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmesh.api.catalog.v1 import catalog_pb2 as pb
from llmesh.api.options.v1 import options_pb2 as options

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.blocks.words import Block
    from gateway.catalog import Method, Report, Step
    from gateway.services.visible import Seen


def tool_message(seen: Seen) -> pb.Tool:
    """The tool, with the methods that no rule can permit the caller marked."""
    tool, sheet = seen.tool, seen.tool.sheet
    message = pb.Tool(
        service=tool.service,
        name=sheet.name or tool.service.rpartition(".")[2],
        summary=sheet.summary,
        domain=tool.domain,
        owner_team=sheet.owner_team,
        product_owner=sheet.product_owner,
        contact=sheet.contact,
        lifecycle=sheet.lifecycle,
        documentation=sheet.documentation,
        models=sheet.models,
        prompts=sheet.prompts,
        data_sources=sheet.data_sources,
        labels=sheet.labels,
        methods=[
            _method_message(
                method,
                denied=method.name not in seen.permitted,
                blocked=_blocked_message(seen.blocked.get(method.name)),
            )
            for method in tool.methods
        ],
        contract_digest=tool.contract.digest,
        endpoint_count=len(tool.endpoints),
        ready_count=len(tool.ready),
        unprotected_transport=not all(endpoint.protected for endpoint in tool.endpoints),
        blocked=_blocked_message(seen.blocked.get("")),
    )
    if sheet.HasField("slo"):
        message.slo.CopyFrom(sheet.slo)
    return message


def endpoint_message(report: Report, *, tells: Callable[[str], bool], unmet: Callable[[str], str]) -> pb.Endpoint:
    """The endpoint, with only the services, and the steps about them, that `tells` lets pass.

    unmet: what to note of a service's options besides; empty for nothing.
    """
    message = pb.Endpoint(
        address=report.endpoint.address,
        source=report.endpoint.source,
        state=pb.Endpoint.State.ValueType(report.state.value),
        steps=[_step_message(step, unmet) for step in report.steps if not step.service or tells(step.service)],
        services=sorted(service for service in report.services if tells(service)),
        held=report.held,
    )
    message.change_time.FromNanoseconds(int(report.changed_s * 1e9))
    return message


def _blocked_message(block: Block | None) -> pb.Blocked | None:
    if block is None:
        return None
    message = pb.Blocked(block=block.id, reason=block.reason)
    if block.until_us is not None:
        message.until.FromMicroseconds(block.until_us)
    return message


def _method_message(method: Method, *, denied: bool, blocked: pb.Blocked | None) -> pb.Method:
    message = pb.Method(
        name=method.name,
        summary=method.options.summary,
        effect=options.Effect.ValueType(method.effect),
        request_type=method.request_type,
        response_type=method.response_type,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        cost=method.options.cost,
        needs_approval=method.options.needs_approval,
        examples=method.options.examples,
        denied=denied,
        blocked=blocked,
    )
    message.deadline.FromTimedelta(method.deadline)
    return message


def _step_message(step: Step, unmet: Callable[[str], str]) -> pb.Step:
    noted = unmet(step.service) if step.passed and step.name == "options" else ""
    return pb.Step(
        name=step.name,
        service=step.service,
        passed=step.passed,
        reason=step.reason,
        message="; ".join(filter(None, (step.message, noted))),
    )
