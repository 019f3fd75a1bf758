"""Train the bundled bridge, run by run, as a configuration says.

    python hub/train_bundle.py --data_dir DATA --patches_dir PATCHES --output_dir runs/bundle

configs/bundle.toml lists the runs and their arguments of `earthvlm train`, from random weights;
`--config configs/bundle_further.toml` starts from the bundled bridge. Each run starts from the
bridge of the one before and has its own folder in --output_dir. What was interrupted resumes, and
finished runs are not repeated, so the same command continues. The trained bridge is in the folder
of the last run; `hub/bundle_bridge.py --run` puts it into the package.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

CONFIG = Path("configs/bundle.toml")
PATCH_LABELS = Path("configs/patch_labels.json")
FINISHED = "finished"  # an empty file in the folder of a finished run
NAME = "name"  # the one entry of a run that is no argument
# Two cores are used best if waiting threads sleep, because a worker prepares samples next to them,
# and if the C library keeps freed memory.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "134217728",
}


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Return the arguments of each run, the shared ones included.

    Raises ValueError, naming the file, for another form.
    """
    try:
        config = tomllib.loads(path.read_text("utf-8"))
        runs = [config.get("shared", {}) | run for run in config["run"]]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no list of training runs: {error}.") from error
    names = [run.get(NAME) for run in runs]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{path}: every [[run]] needs a name of its own, not {names}.")
    return runs


def as_words(arguments: dict[str, Any]) -> list[str]:
    """Return arguments as words of a command line."""
    words = []
    for name, value in arguments.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words.append(f"--{name}={value}")
    return words


def call(command: list[str]) -> int:
    """Run a command and return its exit code.

    It gets SIGTERM and Ctrl-C too, and is waited for, because training then writes a checkpoint.
    """
    with subprocess.Popen(command, env=ENVIRONMENT | os.environ) as process:
        forward = {signal.SIGTERM: lambda number, _: process.send_signal(number)}
        # A terminal sends Ctrl-C to both.
        handlers = {n: signal.signal(n, h) for n, h in (forward | {signal.SIGINT: _wait}).items()}
        try:
            return process.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _wait(_number: int, _frame: object) -> None:
    """Do nothing at a signal that the training handles."""


def train_run(run: dict[str, Any], places: dict[str, Any]) -> int:
    """Train or resume one run; return its exit code, 0 also where it had finished before.

    places: the folders, as arguments.
    """
    output = Path(places["output_dir"])
    if (output / FINISHED).is_file():
        return 0
    words = as_words(places | {key: value for key, value in run.items() if key != NAME})
    if (output / "checkpoints" / "last").exists():
        words.append("--resume=last")
    print(f"{run[NAME]}: earthvlm train {' '.join(words)}", flush=True)
    code = call([sys.executable, "-m", "earthvlm", "train", *words])
    if code == 0:
        (output / FINISHED).touch()
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code of the run that failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="tiles in ChatEarthNet's layout")
    parser.add_argument("--patches_dir", help="labelled patches; without them, tiles alone")
    parser.add_argument("--patch_labels", default=str(PATCH_LABELS), help="see `earthvlm train`")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/bundle"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="the runs (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        runs = read_runs(options.config)
    except (OSError, ValueError) as error:
        print(f"train_bundle.py: {error}", file=sys.stderr)
        return 2
    places: dict[str, Any] = {"data_dir": options.data_dir}
    if options.patches_dir:
        places |= {"patches_dir": options.patches_dir, "patch_labels": options.patch_labels}
    previous: Path | None = None
    for run in runs:
        output = options.output_dir / run[NAME]
        start = {"model_path": str(previous)} if previous is not None else {}
        code = train_run(run, places | start | {"output_dir": str(output)})
        if code:
            return code
        previous = output
    print(f"The trained bridge is in {previous}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
