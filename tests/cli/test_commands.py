"""All commands: help, ranges of arguments, interrupts and pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import earthvlm
from earthvlm.cli import main
from tests.cli.support import assert_one_sentence


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"earthvlm {earthvlm.__version__}\n"


@pytest.mark.parametrize("command", ["describe", "search"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"examples:\n  earthvlm {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "conquer",
        "describe",
        "describe x.tif --bogus",
        "describe x.tif --temperature -1",
        "describe x.tif --temperature nan",
        "describe x.tif --temperature inf",
        "describe x.tif --top_p 0",
        "describe x.tif --top_p 1.1",
        "describe x.tif --top_k -1",
        "describe x.tif --top_k 1.5",
        "describe x.tif --max_length 0",
        "describe x.tif --max_length 2049",
        "describe x.tif --max_length many",
        "describe x.tif --device abacus",
        "describe x.tif --boa_offset maybe",
        "search",
        "search lake --bbox 1 2 3",
        "search lake --bbox 1 50 3 40",
        "search lake --from_date yesterday",
        "search lake --from_date 2020-02-01 --to_date 2020-01-01",
        "search --like no_such_tile",
        "search lake --engine abacus",
        "search lake --top_k 0",
        "search lake --index no/such/index",
    ],
)
def test_arguments_out_of_range_are_refused(arguments, no_model, capfd):
    assert_one_sentence(main(arguments.split()), capfd.readouterr())


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("serach lake", "search"),
        ("--versoin", "--version"),
        ("search lake --top-k 3", "--top_k"),
        ("search lake --topk=3", "--top_k"),
        ("index images --outptu my_index", "--output"),  # which is also missing
        ("describe x.tif --boa_offset Yes", "yes"),
        ("evaluate --data_dir DATA --dataset eurosta", "eurosat"),
        ("train --mixed_precison bf16", "--mixed_precision"),
        ("download moondream", "moondream2"),
        ("ask x.tif", "describe"),
        ("describe x.tif --question water", "--prompt"),  # "--attention" is spelt more like it
    ],
)
def test_a_mistyped_argument_suggests_the_meant_one(arguments, meant, capfd):
    assert_one_sentence(main(arguments.split()), capfd.readouterr(), f"; did you mean {meant}?")


def test_nothing_is_suggested_for_an_unlike_word(capfd):
    assert main(["search", "lake", "--zigzag"]) == 2
    assert "did you mean" not in capfd.readouterr().err


def test_an_interrupt_is_quiet(monkeypatch, scene_file, capfd):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("earthvlm.cli.scenes.describe.load_bridge", interrupt)
    assert main(["describe", scene_file]) == 130
    assert capfd.readouterr() == ("", "")


def run_earthvlm(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "earthvlm", *arguments]
    root = str(Path(earthvlm.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        command,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        # argparse itself passes over a closed pipe that it meets unbuffered.
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""},
        **options,
    )


def test_a_process_refuses_a_text_file_in_one_sentence(tmp_path):
    path = tmp_path / "text.tif"
    path.write_text("not an image")
    result = run_earthvlm("describe", str(path))
    assert_one_sentence(
        result.returncode, SimpleNamespace(out=result.stdout, err=result.stderr), "text.tif"
    )


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    try:
        result = run_earthvlm("--help", stdout=write)
    finally:
        os.close(write)
    assert result.returncode == 141
    assert result.stderr == ""
