"""Several processes, whole or sharded: the weights of one process with a larger batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from earthvlm.training import losses as objectives
from earthvlm.training.losses import contrastive_loss
from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.training_runs import run_training

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
LAUNCH += ["--mixed_precision=no"]
DDP = [*LAUNCH, "--config_file=configs/ddp.yaml"]
FSDP2 = [*LAUNCH, "--config_file=configs/fsdp2.yaml"]
ZERO2 = [*LAUNCH, "--config_file=configs/zero2.yaml"]
OPTIONS = ["--olmoearth_model=random-v1.2-nano", "--device=cpu", "--num_geo_queries=4"]
OPTIONS += ["--num_workers=0", "--lora_r=4", "--max_eval_samples=1", "--warmup_steps=0"]
OPTIONS += ["--accumulation_steps=1", "--max_steps=2", "--save_every=1"]

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many tiles as two steps take: an epoch that does not divide is filled up."""
    folder = tmp_path_factory.mktemp("generated")
    write_generated_chatearthnet(folder, train=8, val=1)
    return folder


def train_alone(data: Path, output: Path, language: str, *options: str) -> None:
    arguments = [f"--data_dir={data}", f"--output_dir={output}", f"--vlm_model={language}"]
    run_training([*arguments, *OPTIONS, *options], output.with_suffix(".log"))


def train(launch: list[str], data: Path, output: Path, language: str, *options: str) -> None:
    command = [*launch, "train_accelerate.py", f"--data_dir={data}", f"--output_dir={output}"]
    done = subprocess.run(
        [*command, f"--vlm_model={language}", *OPTIONS, *options],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# AdamW divides each gradient by its size: where that is next to nothing, the order in which
# processes add up decides it. So many weights, as a share, may differ by more than 1e-5.
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
    # What scenes are compared with differs in validation: there are twice as many.
    assert second[0]["loss"]["contrastive"] == pytest.approx(first[0]["loss"]["contrastive"], 1e-5)
    assert second[1]["loss"]["caption"] == pytest.approx(first[1]["loss"]["caption"], 1e-5)


def gather_rows(rank: int, port: int, folder: Path) -> None:
    """In one of two processes: the loss of all rows, and the gradient of this process's own."""
    store = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    scenes, sentences = (rows.chunk(2)[rank].clone() for rows in unit_rows())
    scenes.requires_grad_()
    loss = contrastive_loss(objectives._gathered(scenes), objectives._gathered(sentences))
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
    processes = [context.Process(target=gather_rows, args=(r, port, tmp_path)) for r in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    gathered = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert all(torch.allclose(other, loss) for other, _ in gathered)
    # Each process counts the loss of all: data parallelism takes their mean.
    gradients = torch.cat([gradient for _, gradient in gathered]) / 2
    torch.testing.assert_close(gradients, scenes.grad)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def alone(data, tiny_language, tmp_path_factory) -> Path:
    """One process with batches of four."""
    output = tmp_path_factory.mktemp("alone")
    train_alone(data, output, tiny_language, "--batch_size=4")
    return output


@pytest.mark.parametrize("launch", [DDP, ZERO2], ids=["ddp", "zero2"])
def test_two_processes_equal_one_with_twice_the_batch(launch, data, alone, tmp_path, tiny_language):
    train(launch, data, tmp_path, tiny_language, "--batch_size=2")
    assert_same_weights(alone, tmp_path)
    assert_same_losses(alone, tmp_path)


@pytest.mark.parametrize("config", ["ddp", "fsdp2", "zero2"])
def test_shipped_configurations_train_in_their_precision(config, data, tmp_path, tiny_language):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2"]
    launch += [f"--config_file=configs/{config}.yaml", "--main_process_port=0"]
    train(launch, data, tmp_path, tiny_language, "--batch_size=2", "--max_steps=1")
    assert (
        json.loads((tmp_path / "config.json").read_text())["training"]["arguments"][
            "mixed_precision"
        ]
        == "bf16"
    )
    (trained, validated) = json.loads((tmp_path / "training_log.json").read_text())
    assert 0 < trained["loss"]["caption"] < 20 and 0 < validated["loss"]["caption"] < 20
    for name, tensor in load_file(tmp_path / "fusion.safetensors").items():
        assert tensor.isfinite().all(), name


def test_shards_equal_one_process_and_go_on_in_one(data, alone, tmp_path, tiny_language):
    train(FSDP2, data, tmp_path / "sharded", tiny_language, "--batch_size=2")
    assert_same_weights(alone, tmp_path / "sharded")
    first = tmp_path / "sharded" / "checkpoints" / "1"
    assert_same_weights(alone / "checkpoints" / "1", first)
    train_alone(data, tmp_path / "more", tiny_language, "--batch_size=4", f"--resume={first}")
    assert_same_weights(alone, tmp_path / "more")


def test_shards_train_every_stage(data, tmp_path, tiny_language):
    """And with batches that are accumulated, of which each process has its part."""
    options = ["--no-freeze_olmoearth", "--encoder_epochs=1", "--query_epochs=1", "--max_steps=1"]
    options += ["--accumulation_steps=2"]
    one = ["--batch_size=2", "--encoder_batch_size=4"]
    two = ["--batch_size=1", "--encoder_batch_size=2"]
    train_alone(data, tmp_path / "one", tiny_language, *options, *one)
    train(FSDP2, data, tmp_path / "two", tiny_language, *options, *two)
    assert_same_weights(
        tmp_path / "one" / "checkpoints" / "encoder-1",
        tmp_path / "two" / "checkpoints" / "encoder-1",
    )


def test_the_launch_script_joins_two_machines(data, alone, tmp_path, tiny_language):
    port = str(free_port())
    machines = []
    for rank in "01":
        place = {"NODES": "2", "NODE_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        machines.append(
            subprocess.Popen(
                [
                    *["configs/launch.sh", "ddp", f"--data_dir={data}", f"--output_dir={tmp_path}"],
                    *[f"--vlm_model={tiny_language}", "--batch_size=2", *OPTIONS],
                    "--mixed_precision=no",
                ],
                cwd=ROOT,
                env=os.environ | place | {"GPUS": "1", "PYTHON": sys.executable},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for machine in machines:
        _, stderr = machine.communicate(timeout=300)
        assert machine.returncode == 0, stderr
    assert_same_weights(alone, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "place", "said"),
    [
        ([], {}, "name a configuration first, one of: ddp"),
        (["nonsense"], {}, "name a configuration first"),
        (["ddp"], {"NODES": "2", "GPUS": "1"}, "2 machines need MASTER_ADDR"),
        (["ddp"], {"GPUS": "0"}, "no GPU is seen here"),
    ],
)
def test_the_launch_script_says_what_is_missing(arguments, place, said):
    done = subprocess.run(
        ["configs/launch.sh", *arguments],
        cwd=ROOT,
        env=os.environ | place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and said in done.stderr
    assert done.stderr.count("\n") == 1
