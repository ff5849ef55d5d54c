"""The example alerts: each names figures that there are."""

from __future__ import annotations

import re

import yaml

from gateway.listener import stats
from gateway.operations import metrics
from tests.docs.pages import blocks
from tests.docs.reader import REPO

PARTS = ("", "_bucket", "_sum", "_count")
LABEL = "envoy_cluster_name"


def read(path: str) -> str:
    """A file of the page for those who run the mesh."""
    [found] = [block.body for block in blocks(REPO / "docs/platform.md") if block.path == path]
    return found


def test_every_figure_that_an_alert_names_is_told() -> None:
    [group] = yaml.safe_load(read("alerts.yml"))["groups"]
    told = {name for name, _, _ in metrics.documented()} | {
        f"{name}{part}" for name in stats.exported() for part in PARTS
    }

    for rule in group["rules"]:
        named = {*re.findall(r"\b(?:up\b|(?:llmesh|envoy)_\w+)", rule["expr"])} - {LABEL}
        assert named, rule
        assert named <= {*told, "up"}, rule
        assert rule["annotations"]["summary"]


def test_the_alerts_are_those_that_the_scrape_knows_and_of_the_job_that_it_makes() -> None:
    scrape = yaml.safe_load(read("prometheus.yml"))
    [job] = scrape["scrape_configs"]

    assert scrape["rule_files"] == ["alerts.yml"]
    assert {*re.findall(r'job="([^"]+)"', read("alerts.yml"))} == {job["job_name"]}
