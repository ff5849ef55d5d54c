from pathlib import Path

import pytest
from package_search.packages import Package, parse

STATUS = Path(__file__).with_name("status.txt").read_text()
JQ = """Package: jq
Status: install ok installed
Section: utils
Version: 1.6
Description: JSON processor
 Filters JSON."""


def named(name: str) -> Package:
    return next(package for package in parse(STATUS) if package.name == name)


def test_installed_packages_are_found_once_each_in_the_files_order() -> None:
    assert [package.name for package in parse(STATUS)] == [
        "adduser",
        "libssl-dev",
        "openssl",
        "g++",
        "jq",
        "curl",
        "libc6",
    ]


def test_description_keeps_its_paragraphs_and_indents() -> None:
    assert named("adduser") == Package(
        name="adduser",
        version="3.134",
        section="admin",
        summary="add and remove users and groups",
        text=(
            "add and remove users and groups\n\n"
            "This package includes the 'adduser' and 'deluser' commands for creating\nand removing users.\n\n"
            " - 'adduser' creates new users and groups and adds existing users to\n   existing groups."
        ),
    )


def test_section_is_told_without_its_area() -> None:
    assert named("curl").section == "web"


def test_missing_facts_are_empty() -> None:
    assert parse("Package: a\nStatus: install ok installed\nDescription: b") == [Package("a", "", "", "b", "b")]


DAMAGED = [
    "",
    "\n\n\n",
    "no field at all",
    ": nameless\n more",
    " begins with a line that goes on\nPackage: x",
    "Package: x\nStatus: install ok installed",
    "Status: install ok installed\nDescription: of nothing",
    "Package: x\nDescription: without a status",
    "Package: x\nStatus: install ok half-installed\nDescription: y",
    "Package:\nStatus: install ok installed\nDescription: y",
    "\x00\x01\ufffd\n\ufffd: \ufffd",
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_damaged_paragraph_gives_none_and_harms_no_other(damaged: str) -> None:
    assert [package.name for package in parse(f"{damaged}\n\n{JQ}\n\n{damaged}")] == ["jq"]


def test_field_names_are_read_in_any_case_and_odd_space() -> None:
    assert parse(JQ.replace("Package:", "PACKAGE :").replace("Section: utils", "section:utils")) == parse(JQ)


def test_endless_description_is_cut() -> None:
    (found,) = parse(JQ.replace("Filters", "many words " * 10_000))

    assert len(found.text) == 6000
