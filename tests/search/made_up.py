"""A mesh of 2,000 tools that is made up, for searches to be tried on: every subject has the eight tools of its kind.

subjects.yaml and kinds.yaml say what there is; a tool is one service in a
file of its own, with what a product sheet usually says. The tools of a subject
differ in what they do, those of a kind in what about: each has hundreds of
near misses. The same at each call. Made after the questions (tools.yaml) by
writing down what an owner would say of such a tool; nothing of it was changed
to suit a search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from llmesh.api.options.v1 import options_pb2 as options

HERE = Path(__file__).parent
# What methods of these names change nothing.
_READS = re.compile(
    "Find|Get|List|Check|Report|Export|Fetch|Trace|Verify|Locate|Sum|Compare|Results|Preview|Watch|Predict|Explain|"
    "Suggest|Measure|Trend|Rank|Detect|Split|Drill|Draft|Improve|Translate|Weekly"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What tools are about. one, several: in words, as in "a tax audit", "tax audits". gloss: what it is."""

    domain: str
    kind: str
    name: str
    several: str
    gloss: str

    @property
    def one(self) -> str:
        """One of it, in words."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name).lower()


def subjects() -> Iterator[Subject]:
    """Every subject, by domain."""
    stated = cast("Mapping[str, Sequence[Sequence[str]]]", yaml.safe_load((HERE / "subjects.yaml").read_text()))
    for domain, several in stated.items():
        yield from (Subject(domain, *each) for each in several)


def contracts() -> dict[str, FileDescriptorProto]:
    """The file of each tool, by its service's full name."""
    kinds = yaml.safe_load((HERE / "kinds.yaml").read_text())
    return {
        f"acme.{subject.domain}.v1.{subject.name}{task}": _contract(subject, task, stated["says"], stated["methods"])
        for subject in subjects()
        for task, stated in kinds[subject.kind].items()
    }


def _contract(subject: Subject, task: str, says: Sequence[str], methods: Mapping[str, str]) -> FileDescriptorProto:
    package, name = f"acme.{subject.domain}.v1", f"{subject.name}{task}"

    def written(text: str) -> str:
        told = text.format(s=subject.one, p=subject.several)
        return re.sub(r"\b([Aa])(?= [aeio])", r"\1n", told[0].upper() + told[1:])

    path = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    file = FileDescriptorProto(name=f"{package.replace('.', '/')}/{path}.proto", package=package, syntax="proto3")
    file.dependency.append("llmesh/api/options/v1/options.proto")
    service = file.service.add(name=name)
    # One owner puts it this way, another that.
    said = written(says[sum(subject.name.encode()) % len(says)])
    title = f"{subject.one.capitalize()} {task.lower()}"
    summary = f"{said} {subject.several[0].upper()}{subject.several[1:]}: {subject.gloss}."
    sheet = options.Tool(name=title, summary=summary, domain=subject.domain, owner_team=f"{subject.domain}-tools")
    service.options.Extensions[options.tool].CopyFrom(sheet)
    for method, text in methods.items():
        asked, given = (
            file.message_type.add(name=f"{method}{name}Request"),
            file.message_type.add(name=f"{method}{name}Response"),
        )
        asked.field.add(**_field("query"))
        given.field.add(**_field("result"))
        made = service.method.add(
            name=method, input_type=f".{package}.{asked.name}", output_type=f".{package}.{given.name}"
        )
        stated = made.options.Extensions[options.method]
        stated.summary = written(text)
        stated.effect = options.EFFECT_READ if _READS.match(method) else options.EFFECT_WRITE
    return file


def _field(name: str) -> dict[str, object]:
    return {
        "name": name,
        "number": 1,
        "type": FieldDescriptorProto.TYPE_STRING,
        "label": FieldDescriptorProto.LABEL_OPTIONAL,
    }
