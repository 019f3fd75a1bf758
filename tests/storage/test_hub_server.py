"""The Hub of these tests answers as the real one, by the real client."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import RevisionNotFoundError

from earthvlm.storage.hub import fetch, find_repository, push
from tests.support.hub_server import TOKEN
from tests.support.hub_server.objects import sha256


@pytest.fixture
def repository(hub):
    repository = hub.repository("owner/name")
    repository.commit({"config.json": b"{}", "weights.pth": b"weights", "a/b.parquet": b"rows"})
    return repository


def test_tree_comes_in_pages(hub, repository):
    hub.page_size = 2
    files = {file.path: file for file in HfApi().list_repo_tree("owner/name", recursive=True)}
    assert set(files) == set(repository.files)
    assert files["weights.pth"].lfs.sha256 == sha256(b"weights")
    assert files["weights.pth"].xet_hash and files["config.json"].xet_hash is None


def test_paths_and_refs_are_listed(hub, repository):
    (found,) = HfApi().get_paths_info("owner/name", ["weights.pth", "nothing"])
    assert found.path == "weights.pth" and found.size == 7
    (branch,) = HfApi().list_repo_refs("owner/name").branches
    assert (branch.name, branch.target_commit) == ("main", repository.refs["main"])


def test_large_file_is_kept_by_another_host(hub, repository):
    metadata = get_hf_file_metadata(hf_hub_url("owner/name", "weights.pth"))
    assert metadata.location.startswith(hub.storage_url)
    assert (metadata.etag, metadata.size) == (sha256(b"weights"), 7)
    assert metadata.xet_file_data.refresh_route.startswith(f"{hub.url}/api/models/owner/name/xet-")
    small = get_hf_file_metadata(hf_hub_url("owner/name", "config.json"))
    assert small.location.startswith(hub.url) and small.xet_file_data is None


def test_commit_to_an_unknown_revision_is_refused(hub, repository):
    before = list(repository.commits)
    with pytest.raises(RevisionNotFoundError):
        HfApi().upload_file(
            path_or_fileobj=b"{}", path_in_repo="new.json", repo_id="owner/name", revision="none"
        )
    assert list(repository.commits) == before


def push_file(folder, text: str, name: str = "README.md") -> str:
    (folder / name).write_text(text)
    return push(folder, "owner/name", ["*"], commit_message="Push", token=TOKEN)


def test_push_without_changes_makes_no_commit(hub, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    first = push_file(tmp_path, "one", "text.md")
    commits = len(hub.repositories["owner/name"].commits)
    assert push_file(tmp_path, "one", "text.md") == first
    assert len(hub.repositories["owner/name"].commits) == commits
    assert push_file(tmp_path, "two", "text.md") != first


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("license: apache", "must be one of the known licences"),
        ("license: other", "license_name"),
        ("license_link: /home/me", "LICENSE.md or a URL"),
        ("base_model: /tmp/model", "must be a model id"),
        ("language: English", "ISO 639"),
        ("model-index: [{name: x}]", "name and results"),
        ("model-index: [{name: x, results: [{task: {type: t}}]}]", "dataset.type"),
        ("- a list", "no YAML mapping"),
    ],
)
def test_invalid_cards_are_refused(hub, metadata, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        push_file(tmp_path, f"---\n{metadata}\n---\n")
    assert not hub.repositories["owner/name"].files


def test_unknown_hardware_and_sdk_are_refused(hub):
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=TOKEN)
    with pytest.raises(HfHubHTTPError, match="Bad request"):
        api.create_repo("owner/app", repo_type="space", space_sdk="gradio", space_hardware="banana")
    api.create_repo("owner/app", repo_type="space", space_sdk="gradio", space_hardware="t4-small")
    assert api.get_space_runtime("owner/app").requested_hardware == "t4-small"


def test_gated_repository_is_described_and_not_read(hub):
    hub.repository("owner/gated").commit({"config.json": b"{}"})
    hub.gated.add("owner/gated")
    assert find_repository("owner/gated").is_gated
    with pytest.raises(ValueError, match="is gated"):
        fetch("owner/gated", ["*"])
