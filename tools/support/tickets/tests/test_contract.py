import json
from pathlib import Path

import grpc
import pytest
from acme.engineering.v1 import doc_search_pb2, doc_search_pb2_grpc
from acme.support.v1 import tickets_pb2 as pb
from google.protobuf import descriptor, json_format, message_factory
from tickets.service import TicketsService
from tickets.store import Store

from llmesh import testing
from llmesh.api.options.v1 import options_pb2
from llmesh.api.retrieval.v1 import retrieval_pb2 as retrieval

SERVICE = pb.DESCRIPTOR.services_by_name["Tickets"]
# Each is called on a store where the ones before it were: the examples tell one story.
UNARY = ["ListTickets", "CreateTicket", "GetTicket", "Suggest", "CloseTicket", "ReopenTicket", "DeleteTicket"]
PERSONAL = {options_pb2.DATA_CLASS_CONFIDENTIAL, options_pb2.DATA_CLASS_PII}


class DocSearch(doc_search_pb2_grpc.DocSearchServicer):
    contract = doc_search_pb2.DESCRIPTOR

    async def Retrieve(self, request: retrieval.RetrieveRequest, context: object) -> retrieval.RetrieveResponse:
        return retrieval.RetrieveResponse()


async def test_the_examples_are_calls_that_work(tmp_path: Path) -> None:
    store = Store(tmp_path / "tickets.db")
    async with testing.run(TicketsService(store), mesh=(DocSearch(),)) as tool:
        for name in UNARY:
            method = SERVICE.methods_by_name[name]
            for example in method.GetOptions().Extensions[options_pb2.method].examples:
                answer = await _call(tool.channel, method, example.request_json)
                if example.response_json:
                    assert answer == json.loads(example.response_json)
    store.close()


@pytest.mark.parametrize(
    "example", SERVICE.methods_by_name["WatchTickets"].GetOptions().Extensions[options_pb2.method].examples
)
def test_the_examples_of_a_watch_are_requests(example: options_pb2.Example) -> None:
    json_format.Parse(example.request_json, pb.WatchTicketsRequest())


def test_every_method_says_what_it_changes() -> None:
    effects = {method.name: method.GetOptions().Extensions[options_pb2.method].effect for method in SERVICE.methods}
    assert effects == {
        "CreateTicket": options_pb2.EFFECT_WRITE,
        "GetTicket": options_pb2.EFFECT_READ,
        "ListTickets": options_pb2.EFFECT_READ,
        "Suggest": options_pb2.EFFECT_READ,
        "WatchTickets": options_pb2.EFFECT_READ,
        "CloseTicket": options_pb2.EFFECT_WRITE,
        "ReopenTicket": options_pb2.EFFECT_WRITE,
        "DeleteTicket": options_pb2.EFFECT_DESTRUCTIVE,
    }


@pytest.mark.parametrize("message", list(pb.DESCRIPTOR.message_types_by_name.values()), ids=lambda found: found.name)
def test_every_field_says_what_it_means_and_who_may_see_it(message: descriptor.Descriptor) -> None:
    for field in message.fields:
        sheet = field.GetOptions().Extensions[options_pb2.field]
        assert sheet.meaning, field.full_name
        assert sheet.data_class, field.full_name
        if field.message_type is None:
            assert sheet.redact == (sheet.data_class in PERSONAL), field.full_name
            assert field.GetOptions().debug_redact == sheet.redact, field.full_name


@pytest.mark.parametrize(
    "name", ["ListTicketsRequest", "ListTicketsResponse", "WatchTicketsResponse", "TicketSummary", "SuggestResponse"]
)
def test_lists_and_watches_hold_nothing_personal(name: str) -> None:
    for field in pb.DESCRIPTOR.message_types_by_name[name].fields:
        assert field.GetOptions().Extensions[options_pb2.field].data_class not in PERSONAL, field.full_name


async def _call(channel: grpc.aio.Channel, method: descriptor.MethodDescriptor, request_json: str) -> dict[str, object]:
    request = json_format.Parse(request_json, message_factory.GetMessageClass(method.input_type)())
    start = channel.unary_unary(
        f"/{SERVICE.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    return json_format.MessageToDict(await start(request))
