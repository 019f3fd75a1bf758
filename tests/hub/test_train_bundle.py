"""The recipe of the bundled bridge: its arguments, its order, and that it resumes."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earthvlm.bridge.model import OlmoEarthVLMBridge
from earthvlm.training.arguments import add_arguments, take_arguments
from earthvlm.training.config import BridgeArguments, TrainingConfig
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.labelled_patches import write_labelled_patches

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "hub"))
import train_bundle  # noqa: E402


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("bundle.toml", ["maps", "answers", "agree", "search"]),
        ("bundle_further.toml", ["agree"]),
    ],
)
def test_recipe_has_valid_arguments(config, names):
    runs = train_bundle.read_runs(ROOT / "configs" / config)
    parser = argparse.ArgumentParser()
    for group in (BridgeArguments, TrainingConfig):
        add_arguments(parser, group)
    for run in runs:
        arguments = {name: value for name, value in run.items() if name != "name"}
        parsed = parser.parse_args(train_bundle.as_words(arguments))
        take_arguments(BridgeArguments, parsed)
        take_arguments(TrainingConfig, parsed)
    assert [run["name"] for run in runs] == names
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


@pytest.fixture
def command(tmp_path, tiny_language) -> list[str]:
    """The arguments of a recipe of two short runs."""
    data, patches = tmp_path / "data", tmp_path / "patches"
    data.mkdir()
    patches.mkdir()
    write_generated_chatearthnet(data, train=4, val=1)
    labels = write_labelled_patches(patches)
    (tmp_path / "a.toml").write_text(
        '[shared]\ndevice = "cpu"\nnum_workers = 0\naccumulation_steps = 1\nwarmup_steps = 1\n'
        '[[run]]\nname = "maps"\nolmoearth_model = "random-v1.2-nano"\nfreeze_olmoearth = false\n'
        f'vlm_model = "{tiny_language}"\nnum_geo_queries = 8\nnum_epochs = 0\n'
        "segmentation_epochs = 3\nencoder_batch_size = 4\nsave_every = 1\n"
        '[[run]]\nname = "answers"\nscene_context = true\nencoder_learning_rate = 0.0\n'
        "max_steps = 1\nbatch_size = 2\n"
    )
    arguments = [f"--config={tmp_path / 'a.toml'}", f"--data_dir={data}"]
    arguments += [f"--patches_dir={patches}", f"--patch_labels={labels}"]
    return [*arguments, f"--output_dir={tmp_path / 'out'}"]


@pytest.mark.slow
def test_interrupted_recipe_resumes_and_repeats_nothing(command, tmp_path, monkeypatch, capsys):
    # Imported here, because Windows, where this file has to be found too, forks no process.
    from tests.support.forked_programs import run_program

    script = [sys.executable, str(ROOT / "hub" / "train_bundle.py"), *command]
    with subprocess.Popen(script, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / "maps" / "checkpoints" / "last").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "out" / "maps" / train_bundle.FINISHED).exists()

    monkeypatch.setattr(train_bundle, "call", lambda words: run_program(*words[1:]).returncode)
    assert train_bundle.main(command) == 0
    assert "--resume=last" in capsys.readouterr().out.splitlines()[0]
    assert (tmp_path / "out" / "answers" / train_bundle.FINISHED).is_file()
    bridge = OlmoEarthVLMBridge.from_pretrained(tmp_path / "out" / "answers", device="cpu")
    assert bridge.config.segmentation_head and bridge.config.scene_context
    first = OlmoEarthVLMBridge.from_pretrained(tmp_path / "out" / "maps", device="cpu")
    for one, other in zip(first.encoder.parameters(), bridge.encoder.parameters(), strict=True):
        assert one.equal(other)
    assert train_bundle.main(command) == 0
    assert "earthvlm train" not in capsys.readouterr().out
