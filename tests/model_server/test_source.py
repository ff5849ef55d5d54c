"""What tells one model from another, and where it is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_server.source import SourceError, find_source


def model_at(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in {"model_safetensors": "weights", **files}.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def test_a_folder_is_called_by_its_name_and_its_revision_is_of_its_weights(tmp_path: Path) -> None:
    found = find_source(str(model_at(tmp_path / "small")), "")
    assert found.id == "small"
    assert found.weights_digest.startswith(f"sha256:{found.revision}")
    assert len(found.weights_digest) == len("sha256:") + 64
    assert not found.is_placeholder


def test_the_digest_is_of_the_weights_and_their_names_alone(tmp_path: Path) -> None:
    digests = [
        find_source(str(model_at(tmp_path / "one")), "").weights_digest,
        find_source(str(model_at(tmp_path / "two", README_md="hello")), "").weights_digest,
        find_source(str(model_at(tmp_path / "three", model_safetensors="other")), "").weights_digest,
        find_source(str(model_at(tmp_path / "four", more_safetensors="weights")), "").weights_digest,
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("revision", ["", "main", "v1.0", "a" * 39, "A" * 40])
def test_a_hubs_model_needs_a_whole_commit(revision: str) -> None:
    with pytest.raises(SourceError, match="whole commit"):
        find_source("acme/model", revision)


def test_what_is_no_folder_and_no_hubs_id_is_looked_for_nowhere() -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        find_source("../models/none", "a" * 40)


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no weights"):
        find_source(str(tmp_path), "")
