"""The arguments of a training run: their checks, their help, and the recorded command."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

import earthvlm
from earthvlm.bridge.config import BridgeConfig
from earthvlm.cli import build_parser, main
from earthvlm.training.arguments import render_command
from earthvlm.training.config import (
    BridgeArguments,
    RunArguments,
    TrainingArguments,
    TrainingConfig,
)

# Arguments out of their bounds, and the start of the error message.
INVALID = {
    "--batch_size=0": "--batch_size must be a whole number of at least 1; 0 was given.",
    "--accumulation_steps=0": "--accumulation_steps must be a whole number of at least 1; 0",
    "--num_geo_queries=0": "--num_geo_queries must be a whole number of at least 1; 0 was given.",
    "--lora_r=0": "--lora_r must be a whole number of at least 1",
    "--lora_alpha=-1": "--lora_alpha must be a whole number of at least 1",
    "--patch_size=0": "--patch_size must be a whole number of at least 1 and at most 8; 0",
    "--embedding_patch_size=9": "--embedding_patch_size must be a whole number of at least 1",
    "--encoder_epochs=-1": "--encoder_epochs must be a whole number of at least 0",
    "--query_epochs=-1": "--query_epochs must be a whole number of at least 0",
    "--num_epochs=-1": "--num_epochs must be a whole number of at least 0",
    "--num_epochs=0": "Nothing would be trained: one of --segmentation_epochs, --encoder_epochs",
    "--segmentation_epochs=-1": "--segmentation_epochs must be a whole number of at least 0",
    "--segmentation_learning_rate=-1": "--segmentation_learning_rate must be a number of",
    "--retrieval_head_epochs=-1": "--retrieval_head_epochs must be a whole number of at least 0",
    "--encoder_batch_size=0": "--encoder_batch_size must be a whole number of at least 1",
    "--learning_rate=-1": "--learning_rate must be a number of at least 0; -1 was given.",
    "--context_share=1.5": "--context_share must be a number of at least 0 and at most 1; 1.5 was",
    "--learning_rate=nan": "--learning_rate must be a number of at least 0; nan was given.",
    "--encoder_learning_rate=inf": "--encoder_learning_rate must be a number of at least 0; inf",
    "--query_learning_rate=-0.1": "--query_learning_rate must be a number of at least 0",
    "--head_learning_rate=-0.1": "--head_learning_rate must be a number of at least 0",
    "--weight_decay=-1": "--weight_decay must be a number of at least 0",
    "--warmup_steps=-1": "--warmup_steps must be a whole number of at least 0",
    "--save_every=-1": "--save_every must be a whole number of at least 0",
    "--save_total_limit=-1": "--save_total_limit must be a whole number of at least 0",
    "--hub_push_steps=-1": "--hub_push_steps must be a whole number of at least 0",
    "--validate_every=-1": "--validate_every must be a whole number of at least 0",
    "--max_eval_samples=-1": "--max_eval_samples must be a whole number of at least 0",
    "--max_steps=-1": "--max_steps must be a whole number of at least 0",
    "--num_workers=-1": "--num_workers must be a whole number of at least 0",
    "--seed=-1": "--seed must be a whole number of at least 0 and at most 4294967295; -1",
    "--seed=4294967296": "--seed must be a whole number of at least 0 and at most 4294967295",
    "--device=banana": "--device must be cpu, cuda, cuda:N or mps; 'banana' was given.",
    "--device=cpu:1": "--device must be cpu, cuda, cuda:N or mps; 'cpu:1' was given.",
    "--device=cuda:3": "This machine has no device 'cuda:3' (0 GPUs are seen)",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    return build_parser().parse_args(["train", *arguments])


@pytest.mark.parametrize("argument", INVALID)
def test_invalid_argument_is_one_sentence(argument, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code = main(["train", f"--data_dir={tmp_path}", f"--output_dir={tmp_path}", argument])
    message = capsys.readouterr().err
    assert code == 2 and message.startswith(f"earthvlm: {INVALID[argument]}")
    assert message.count("\n") == 1 and not any(tmp_path.iterdir())


def test_every_number_has_an_invalid_value_above():
    parsed = vars(parse([]))
    numbers = {name for name, value in parsed.items() if type(value) in (int, float)}
    numbers |= {name for name in parsed if name.endswith("_rate") or "patch_size" in name}
    assert numbers <= {argument.removeprefix("--").partition("=")[0] for argument in INVALID}


def test_config_refuses_an_unknown_choice(tmp_path):
    with pytest.raises(ValueError, match="--schedule must be one of cosine, linear; 'wavy'"):
        TrainingConfig(str(tmp_path), str(tmp_path), schedule="wavy")


def test_command_line_defaults_are_the_dataclasses():
    assert TrainingArguments.take(parse([])) == (
        TrainingArguments(BridgeArguments(), TrainingConfig(), RunArguments())
    )


def test_help_describes_every_argument(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--learning_rate LEARNING_RATE rate of the language model's weights (default: 0.0" in text
    )
    assert "--use_lora, --no-use_lora" in text


def test_recorded_command_repeats_the_run(tmp_path):
    (tmp_path / "saved").mkdir()
    typed = [f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'run'}"]
    typed += [f"--model_path={tmp_path / 'saved'}", f"--feature_cache_dir={tmp_path / 'cache'}"]
    typed += ["--no-use_lora", "--learning_rate=2e-5", "--batch_size=8", "--num_workers=2"]
    typed += ["--push_to_hub=owner/name", "--device=cpu", "--gradient_checkpointing"]
    arguments = TrainingArguments.take(parse(typed))
    command = render_command(arguments.config, arguments.bridge, number=3)
    assert str(tmp_path) not in command
    assert command == (
        "accelerate launch -m earthvlm.train --data_dir DATA --output_dir RUN3 --batch_size 8 "
        "--feature_cache_dir CACHE --learning_rate 2e-05 --gradient_checkpointing "
        "--model_path RUN2 --no-use_lora"
    )
    parsed = parse(command.split()[4:])
    assert (parsed.batch_size, parsed.learning_rate, parsed.use_lora) == (8, 2e-5, False)


def test_recorded_command_names_public_models():
    arguments = BridgeArguments(model_path="owner/bridge", vlm_model="owner/model")
    command = render_command(arguments, number=1)
    assert command.endswith("train --model_path owner/bridge --vlm_model owner/model")


def test_recorded_commands_of_the_bundled_bridge_parse():
    record = BridgeConfig.read(Path(earthvlm.__file__).parent / "bundled" / "bridge").training
    runs = [*record["earlier"], record]
    for number, run in enumerate(runs, start=1):
        words = run["command"].split()
        parsed = parse(words[words.index("--data_dir") :])
        assert parsed.output_dir == f"RUN{number}"
        # A later recipe starts from the bundle of its day.
        assert parsed.model_path in ((f"RUN{number - 1}", "bundled") if number > 1 else (None,))
