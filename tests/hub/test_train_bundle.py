"""The recipe of the bundled bridge: its arguments, its order, and that it resumes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.training.config import BridgeArguments, TrainingConfig, add_arguments, take_arguments
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.labelled_patches import write_labelled_patches

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "hub"))
import train_bundle  # noqa: E402


def test_recipe_has_valid_arguments_and_ends_with_search():
    import argparse

    runs = train_bundle.read_runs(ROOT / train_bundle.CONFIG)
    parser = argparse.ArgumentParser()
    for group in (BridgeArguments, TrainingConfig):
        add_arguments(parser, group)
    for run in runs:
        arguments = {name: value for name, value in run.items() if name != "name"}
        parsed = parser.parse_args(train_bundle.as_words(arguments))
        take_arguments(BridgeArguments, parsed)
        take_arguments(TrainingConfig, parsed)
    assert [run["name"] for run in runs] == ["maps", "answers", "search"]
    assert (ROOT / train_bundle.PATCH_LABELS).is_file()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[run]]\nnum_epochs = 1\n", "needs a name of its own"),
        ('[[run]]\nname = "a"\n[[run]]\nname = "a"\n', "needs a name of its own"),
        ("run = 3\n", "is no list of training runs"),
        ("= 3", "is no list of training runs"),
    ],
)
def test_other_configurations_are_refused(tmp_path, capsys, text, reason):
    (tmp_path / "a.toml").write_text(text)
    code = train_bundle.main([f"--config={tmp_path / 'a.toml'}", "--data_dir=none"])
    assert code == 2
    message = capsys.readouterr().err
    assert reason in message and "Traceback" not in message and message.count("\n") == 1


@pytest.mark.slow
def test_runs_follow_each_other_and_are_not_repeated(tmp_path, tiny_language, capsys):
    data, patches = tmp_path / "data", tmp_path / "patches"
    data.mkdir()
    patches.mkdir()
    write_generated_chatearthnet(data, train=4, val=1)
    labels = write_labelled_patches(patches)
    (tmp_path / "a.toml").write_text(
        '[shared]\ndevice = "cpu"\nnum_workers = 0\naccumulation_steps = 1\nwarmup_steps = 1\n'
        '[[run]]\nname = "maps"\nolmoearth_model = "random-v1.2-nano"\nfreeze_olmoearth = false\n'
        f'vlm_model = "{tiny_language}"\nnum_geo_queries = 8\nnum_epochs = 0\n'
        "segmentation_epochs = 1\nencoder_batch_size = 4\n"
        '[[run]]\nname = "answers"\nscene_context = true\nencoder_learning_rate = 0.0\n'
        "max_steps = 1\nbatch_size = 2\n"
    )
    command = [f"--config={tmp_path / 'a.toml'}", f"--data_dir={data}", f"--patches_dir={patches}"]
    command += [f"--patch_labels={labels}", f"--output_dir={tmp_path / 'out'}"]
    assert train_bundle.main(command) == 0
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path / "out" / "answers", device="cpu")
    assert bridge.config.segmentation_head and bridge.config.scene_context
    first = OlmoEarthVLMBridge.from_pretrained(tmp_path / "out" / "maps", device="cpu")
    for one, other in zip(first.encoder.parameters(), bridge.encoder.parameters(), strict=True):
        assert one.equal(other)
    capsys.readouterr()
    assert train_bundle.main(command) == 0
    assert "earthvlm train" not in capsys.readouterr().out
