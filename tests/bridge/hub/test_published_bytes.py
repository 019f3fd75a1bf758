"""Published files contain no path of this machine and no token."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from earthvlm.cli import main
from tests.bridge.hub.test_publish import results_of
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.hub_server import TOKEN

PRIVATE_FOLDER = "folder-of-jane-doe"


@pytest.mark.slow
def test_published_files_contain_no_path_and_no_token(hub, tiny_repository, tmp_path, monkeypatch):
    home = tmp_path / PRIVATE_FOLDER
    write_generated_chatearthnet(home / "data", train=4, val=2)
    monkeypatch.setattr(sys, "argv", [str(home / "earthvlm")])
    options = [f"--data_dir={home / 'data'}", f"--output_dir={home / 'run'}", "--batch_size=2"]
    options += ["--olmoearth_model=random-v1.2-nano", f"--vlm_model={tiny_repository[0]}"]
    options += ["--num_geo_queries=4", "--num_workers=0", "--device=cpu", "--hub_push_steps=1"]
    options += ["--accumulation_steps=1"]
    options += [f"--feature_cache_dir={home / 'cache'}", "--push_to_hub=owner/bridge"]
    assert main(["train", *options]) == 0
    resumed = [f"--model_path={home / 'run'}", f"--output_dir={home / 'second'}"]
    assert main(["train", *options[:1], *resumed, *options[2:]]) == 0

    run = home / "second"
    (home / "results.json").write_text(json.dumps(results_of(run)))
    push = ["push", str(run), "owner/bridge", "--results", str(home / "results.json")]
    assert main(push) == 0
    embed = [f"--data_dir={home / 'data'}", f"--output={home / 'out'}", "--splits", "val"]
    embed += ["--num_workers=0", "--push_to_hub=owner/embeddings"]
    assert main(["embed-dataset", *embed, "--bridge=owner/bridge"]) == 0
    assert main(["publish-space", "owner/space", "--bridge=owner/bridge"]) == 0

    forbidden = [
        PRIVATE_FOLDER,
        str(tmp_path),
        TOKEN,
        f"/home/{getpass.getuser()}",
        str(Path.home()),
    ]
    published = [name for name in hub.repositories if name != tiny_repository[0]]
    assert published == ["owner/bridge", "datasets/owner/embeddings", "spaces/owner/space"]
    for name in published:
        repository = hub.repositories[name]
        for files in repository.commits.values():
            for path, content in files.items():
                if path.endswith(".parquet"):  # whose metadata is not compressed
                    (tmp_path / "shard.parquet").write_bytes(content)
                    content += str(pq.read_table(tmp_path / "shard.parquet").to_pylist()).encode()
                for text in forbidden:
                    assert text.encode() not in content, f"{name}: {path} holds {text}"
    assert len(hub.repositories["owner/bridge"].commits) > 3
