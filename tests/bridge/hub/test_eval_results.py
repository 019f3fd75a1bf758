"""The Hub's file of evaluation results, as its own client reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from earthvlm.bridge.hub.eval_results import write_eval_results
from earthvlm.bridge.hub.model_card import write_bridge_card
from earthvlm.bridge.hub.publish import publish_bridge
from tests.bridge.hub.test_publish import results_of

FILE = ".eval_results/earthvlm.yaml"
MEASURED = {"dataset": "JessicaYuan/ChatEarthNet", "date": "2026-11-30T08:00:00+00:00"}


def test_results_on_a_dataset_of_the_hub_are_published(hub, saved):
    publish_bridge(saved, "owner/bridge", results=results_of(saved) | MEASURED)
    files = hub.repositories["owner/bridge"].files
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[FILE]))
    assert (entry.dataset_id, entry.task_id, entry.value) == (
        *("JessicaYuan/ChatEarthNet", "is_there_water"),
        0.9,
    )
    assert entry.date == MEASURED["date"]
    assert "240 tiles of split val" in entry.notes and "0.800 to 0.950" in entry.notes
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results[0].dataset_type == "JessicaYuan/ChatEarthNet"
    assert "geospatial" in card.data.tags


@pytest.mark.parametrize("results", [None, {"dataset": None}])
def test_other_results_are_not_published(results, hub, saved):
    publish_bridge(saved, "owner/bridge", results=results_of(saved) | MEASURED)
    publish_bridge(saved, "owner/bridge", results=results and results_of(saved) | results)
    assert FILE not in hub.repositories["owner/bridge"].files


def test_earlier_results_in_a_folder_are_removed(tmp_path, saved):
    write_eval_results(tmp_path, results_of(saved) | MEASURED)
    assert (tmp_path / FILE).is_file()
    write_eval_results(tmp_path, None)
    assert not (tmp_path / FILE).exists()


def test_snippet_for_the_hub_is_that_of_the_card(saved):
    page = (Path(__file__).parents[3] / "docs" / "hub.md").read_text("utf-8")
    (snippet,) = re.findall(r"`(from earthvlm .*?)`,", page, re.DOTALL)
    write_bridge_card(saved, "owner/bridge")
    card = (saved / "README.md").read_text("utf-8")
    assert snippet.replace("${model.id}", "owner/bridge") in card
