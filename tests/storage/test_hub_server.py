"""The Hub of these tests answers as the real one, by the real client."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import RevisionNotFoundError

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
