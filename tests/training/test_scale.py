"""Several processes, replicated or sharded: the weights of one process with a larger batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from earthvlm.training.losses.training_model import contrastive_loss, gather_rows
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.ports import free_port
from tests.support.training_runs import TRAIN, run_training, run_two_processes

ROOT = Path(__file__).parents[2]
OPTIONS = ["--olmoearth_model=random-v1.2-nano", "--device=cpu", "--num_geo_queries=4"]
OPTIONS += ["--num_workers=0", "--lora_r=4", "--max_eval_samples=1", "--warmup_steps=0"]
OPTIONS += ["--accumulation_steps=1", "--max_steps=2", "--save_every=1"]

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many tiles as two steps take, because an epoch that does not divide is padded."""
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=8, val=1)
    return folder


def options_for(data: Path, output: Path, language: str, *options: str) -> list[str]:
    folders = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    return [*folders, *OPTIONS, *options]


def train_alone(data: Path, output: Path, language: str, *options: str) -> None:
    run_training(options_for(data, output, language, *options), output.with_suffix(".log"))


def train_together(config: str, data: Path, output: Path, language: str, *options: str) -> None:
    """In float32, so that the weights can be compared with one process's."""
    arguments = options_for(data, output, language, *options)
    command = [*TRAIN, *arguments]
    run_two_processes(config, command, output.with_suffix(".log"), "--mixed_precision=no")


# AdamW divides each gradient by its size. For tiny gradients, the order in which processes sum
# decides the result. This share of the weights may differ by more than 1e-5.
DECIDED_BY_ORDER = 1e-4


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (
        {
            f"{path.name}/{name}": tensor
            for path in folder.rglob("*.safetensors")
            if "checkpoints" not in path.relative_to(folder).parts
            for name, tensor in load_file(path).items()
        }
        for folder in (one, other)
    )
    assert first.keys() == second.keys() and len(first) > 20
    apart = {name: ((second[name] - first[name]).abs() > 1e-5).sum().item() for name in first}
    numbers = sum(tensor.numel() for tensor in first.values())
    assert sum(apart.values()) <= DECIDED_BY_ORDER * numbers, {n: c for n, c in apart.items() if c}


def assert_same_losses(one: Path, other: Path) -> None:
    first, second = (json.loads((f / "training_log.json").read_text()) for f in (one, other))
    assert [e["stage"] for e in first] == [e["stage"] for e in second] == ["bridge", "validation"]
    # Not the contrastive loss of the validation: it compares twice as many scenes.
    assert second[0]["loss"]["contrastive"] == pytest.approx(first[0]["loss"]["contrastive"], 1e-5)
    assert second[1]["loss"]["caption"] == pytest.approx(first[1]["loss"]["caption"], 1e-5)


def contrast_in_one_of_two(rank: int, port: int, folder: Path) -> None:
    """Save the loss of all rows and the gradient of this process's own."""
    store = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    scenes, sentences = (rows.chunk(2)[rank].clone() for rows in unit_rows())
    scenes.requires_grad_()
    loss = contrastive_loss(gather_rows(scenes), gather_rows(sentences))
    loss.backward()
    torch.save((loss.detach(), scenes.grad), folder / f"{rank}.pt")


def unit_rows() -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    return tuple(torch.nn.functional.normalize(rows, dim=-1))


@pytest.mark.filterwarnings("error")
def test_gathered_rows_have_the_gradients_of_one_process(tmp_path):
    scenes, sentences = unit_rows()
    scenes.requires_grad_()
    loss = contrastive_loss(scenes, sentences)
    loss.backward()
    context = multiprocessing.get_context("fork")
    port = free_port()
    processes = [
        context.Process(target=contrast_in_one_of_two, args=(rank, port, tmp_path))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    gathered = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert all(torch.allclose(other, loss) for other, _ in gathered)
    # Each process computes the loss of all rows; data parallelism takes the mean of gradients.
    gradients = torch.cat([gradient for _, gradient in gathered]) / 2
    torch.testing.assert_close(gradients, scenes.grad)


@pytest.fixture(scope="module")
def alone(data, tiny_language, tmp_path_factory) -> Path:
    """A run of one process with batches of four."""
    output = tmp_path_factory.mktemp("alone")
    train_alone(data, output, tiny_language, "--batch_size=4")
    return output


@pytest.fixture(scope="module")
def alone_without_lora(data, tiny_language, tmp_path_factory) -> Path:
    """The same, training all weights of the language model."""
    output = tmp_path_factory.mktemp("alone-without-lora")
    train_alone(data, output, tiny_language, "--batch_size=4", "--no-use_lora")
    return output


def test_two_replicas_equal_one_process(data, alone, tmp_path, tiny_language):
    train_together("ddp", data, tmp_path, tiny_language, "--batch_size=2")
    assert_same_weights(alone, tmp_path)
    assert_same_losses(alone, tmp_path)


def test_shards_equal_one_process_and_resume_in_one(data, alone, tmp_path, tiny_language):
    train_together("fsdp2", data, tmp_path / "sharded", tiny_language, "--batch_size=2")
    assert_same_weights(alone, tmp_path / "sharded")
    assert_same_losses(alone, tmp_path / "sharded")
    first = tmp_path / "sharded" / "checkpoints" / "1"
    assert_same_weights(alone / "checkpoints" / "1", first)
    train_alone(data, tmp_path / "more", tiny_language, "--batch_size=4", f"--resume={first}")
    assert_same_weights(alone, tmp_path / "more")


@pytest.mark.one_setting
@pytest.mark.parametrize("config", ["zero2", "ddp", "fsdp2"])
def test_without_lora_two_processes_equal_one(
    config, data, alone_without_lora, tmp_path, tiny_language
):
    options = ["--batch_size=2", "--no-use_lora"]
    train_together(config, data, tmp_path, tiny_language, *options)
    assert (tmp_path / "language_model.safetensors").is_file()
    assert_same_weights(alone_without_lora, tmp_path)
    assert_same_losses(alone_without_lora, tmp_path)


@pytest.mark.one_setting
@pytest.mark.parametrize("config", ["fsdp2", "zero2", "ddp"])
def test_shipped_configurations_train_in_their_precision(config, data, tmp_path, tiny_language):
    options = options_for(data, tmp_path, tiny_language, "--batch_size=2", "--max_steps=1")
    run_two_processes(config, [*TRAIN, *options], tmp_path / "log")
    record = json.loads((tmp_path / "config.json").read_text())["training"]
    assert "--mixed_precision bf16" in record["command"]
    (trained, validated) = json.loads((tmp_path / "training_log.json").read_text())
    assert 0 < trained["loss"]["caption"] < 20 and 0 < validated["loss"]["caption"] < 20
    for name, tensor in load_file(tmp_path / "fusion.safetensors").items():
        assert tensor.isfinite().all(), name


@pytest.mark.nightly
def test_shards_train_every_stage(data, tmp_path, tiny_language):
    """With accumulated batches, of which each process has its part."""
    options = ["--no-freeze_olmoearth", "--encoder_epochs=1", "--query_epochs=1", "--max_steps=1"]
    options += ["--accumulation_steps=2"]
    one = ["--batch_size=2", "--encoder_batch_size=4"]
    two = ["--batch_size=1", "--encoder_batch_size=2"]
    train_alone(data, tmp_path / "one", tiny_language, *options, *one)
    train_together("fsdp2", data, tmp_path / "two", tiny_language, *options, *two)
    assert_same_weights(
        tmp_path / "one" / "checkpoints" / "encoder-1",
        tmp_path / "two" / "checkpoints" / "encoder-1",
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {}, "name a configuration first, one of: ddp"),
        (["nonsense"], {}, "name a configuration first"),
        (["ddp"], {"NODES": "2", "GPUS": "1"}, "2 machines need MASTER_ADDR"),
        (["ddp"], {"GPUS": "0"}, "no GPU is seen here"),
    ],
)
def test_launch_script_names_what_is_missing(arguments, variables, message):
    done = subprocess.run(
        ["configs/launch.sh", *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1
