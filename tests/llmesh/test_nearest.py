"""Who names a tool that is not there reads what may have been meant."""

from __future__ import annotations

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from llmesh.api.model.v1 import model_pb2
from llmesh.api.options.v1 import options_pb2
from llmesh.dynamic import BadJson, Method
from llmesh.nearest import nearest_tool, nearest_value

KNOWN = ("acme.engineering.v1.DocSearch", "acme.support.v1.Tickets")


@pytest.mark.parametrize(
    ("service", "method", "words"),
    [
        pytest.param(
            "acme.engineering.v1", "DocSearch", ": `acme.engineering.v1.DocSearch` is the tool", id="no method"
        ),
        pytest.param("DocSearch", "Retrieve", " (nearest: `acme.engineering.v1.DocSearch`)", id="the end of a name"),
        pytest.param(
            "acme.engineering.v1.DocSerch", "Retrieve", " (nearest: `acme.engineering.v1.DocSearch`)", id="typo"
        ),
        pytest.param("com.example.Weather", "Get", "", id="nothing like it"),
    ],
)
def test_what_may_have_been_meant_is_named(service: str, method: str, words: str) -> None:
    found = nearest_tool(service, method, KNOWN)
    assert found.startswith(words) if words else found == ""


@pytest.mark.parametrize(
    ("role", "words"),
    [
        pytest.param("ROLE_USR", " (nearest: `ROLE_USER`)", id="typo"),
        pytest.param("user", " (nearest: `ROLE_USER`)", id="the end of a name"),
        pytest.param("xyz", "messages[0].role", id="nothing like it"),
        pytest.param("a for enum type b", "messages[0].role", id="words like protobuf's own"),
    ],
)
def test_the_value_of_an_enum_that_may_have_been_meant_is_named(role: str, words: str) -> None:
    file = model_pb2.DESCRIPTOR
    method = Method(file.services_by_name["ModelService"].methods_by_name["Generate"], file.pool)
    with pytest.raises(BadJson, match=r"Invalid enum value .* for enum type llmesh\.api\.model\.v1\.Role") as told:
        method.request({"conversation": {"messages": [{"role": role}]}})
    assert str(told.value).endswith(words)


@pytest.mark.parametrize(
    ("value", "enum", "meant"),
    [
        pytest.param("stop", model_pb2.FinishReason, "FINISH_REASON_STOP", id="FinishReason"),
        pytest.param("embed", model_pb2.ModelCapability, "MODEL_CAPABILITY_EMBED", id="ModelCapability"),
        pytest.param("Read", options_pb2.Effect, "EFFECT_READ", id="Effect"),
        pytest.param("public", options_pb2.DataClass, "DATA_CLASS_PUBLIC", id="DataClass"),
        pytest.param("pii", options_pb2.DataClass, "DATA_CLASS_PII", id="short"),
        pytest.param("DATA_CLASS_PUBLIK", options_pb2.DataClass, "DATA_CLASS_PUBLIC", id="typo"),
    ],
)
def test_a_value_without_the_name_of_its_enum_is_found(value: str, enum: EnumTypeWrapper, meant: str) -> None:
    assert nearest_value(value, enum.keys()) == f" (nearest: `{meant}`)"
