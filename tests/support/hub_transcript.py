"""Run the commands of a Hub user from training to search, and write a transcript into a page.

    python -m tests.support.hub_transcript [docs/hub.md]

Every command runs in a shell of its own with a fresh home, through huggingface_hub's real client
with Xet on. The Hub is the one of tests/hub_server, which keeps nothing afterwards. The transcript
replaces what follows `MARK` in the page.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.generated_chatearthnet import write_generated_chatearthnet
from tests.support.hub_server import TOKEN, serve
from tests.support.ports import free_port
from tests.support.tiny_models import save_tiny_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hub.md"
MARK = "<!-- Below: written by python -m tests.support.hub_transcript -->\n"
PATIENCE = 600  # seconds for one command on a busy machine
# Progress bars, and what accelerate and torch say of every run.
NOISE = re.compile(
    r"it/s|B/s|\d%\||^\s*$|Warning|warnings\.warn|accelerate launch`|^\s*`--|To avoid this warning"
    r"|Using the `|W\d{4} |^Started|encode_request|headers, stream|Hint: The|^Uploading\.\.\."
    r"|^Processing Files|^New Data Upload|^Validating"
)
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WIDTH = 160  # of a line, beyond which an untrained model's answers say no more

TRAIN = (
    "accelerate launch -m earthvlm.train --data_dir data --output_dir run --device cpu \\\n"
    "    --olmoearth_model random-v1.2-nano --no-freeze_olmoearth --vlm_model jane/tiny-llama \\\n"
    "    --num_geo_queries 4 --batch_size 2 --accumulation_steps 1 --num_workers 0 \\\n"
    "    --num_epochs 2 --save_every 1"
)
SEARCH = """python - <<'END'
from gradio_client import Client

app = Client("http://127.0.0.1:{port}", verbose=False)
found = app.predict("water in the top left", 3, api_name="/search_scenes")
for scene in found["scenes"]:
    print(scene["image_id"], scene["caption_by_model"])
END"""


class Transcript:
    """Runs commands of one user in one folder, and records the commands and their output."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.lines: list[str] = []
        home = folder.parent / "home"
        home.mkdir()
        kept = ("LANG", "EARTHVLM_TEST_DATA")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ} | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": TOKEN,
            "OMP_NUM_THREADS": "1",  # sums in one order, so that weights can be compared
            "TRANSFORMERS_VERBOSITY": "error",
        }

    def tell(self, text: str) -> None:
        self.lines.append(f"\n{text}\n")

    def run(self, command: str, **environment: str) -> None:
        """Run a command to its end. AssertionError if it fails."""
        process = self._start(command, environment)
        said, _ = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}: {said}")
        self._keep(command, said)

    def kill(self, command: str, appears: str) -> None:
        """Run a command and kill all its processes once a file appears."""
        process = self._start(command, {})
        deadline = time.time() + PATIENCE
        while not (self.folder / appears).exists():
            if process.poll() is not None or time.time() > deadline:
                raise RuntimeError(f"{command} never wrote {appears}: {process.communicate()[0]}")
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        self._keep(command, process.communicate()[0] + f"\nKilled once {appears} was there")

    @contextmanager
    def serving(self, command: str, port: int) -> Iterator[None]:
        """Run a command that serves a page until the context ends."""
        process = self._start(command, {})
        try:
            deadline = time.time() + PATIENCE
            while not _answers(port):
                if process.poll() is not None or time.time() > deadline:
                    raise RuntimeError(f"{command} serves nothing: {process.communicate()[0]}")
                time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            self._keep(f"{command} &", process.communicate()[0], before=1)

    def _start(self, command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _keep(self, command: str, said: str, before: int = 0) -> None:
        if TOKEN in said:
            raise RuntimeError(f"{command} told the token: {said}")
        lines = COLOURS.sub("", said).split("\n")
        lines = [line.rpartition("\r")[2].rstrip() for line in lines]
        lines = [line for line in lines if not NOISE.search(line)]
        said = "\n".join(line if len(line) <= WIDTH else f"{line[:WIDTH]} [...]" for line in lines)
        said = said.replace(self.endpoint, "$HF_ENDPOINT").replace(str(self.folder), "~/work")
        block = f"\n```console\n$ {command}\n{said.rstrip()}".rstrip() + "\n```\n"
        self.lines.insert(len(self.lines) - before, block)
        print(block, flush=True)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def write_transcript(scratch: Path) -> str:
    """Run all commands and return the transcript as Markdown."""
    work = scratch / "work"
    work.mkdir()
    write_generated_chatearthnet(work / "data", train=8, val=4)
    save_tiny_model(work / "tiny-llama", "llama")
    (scratch / "hub").mkdir()
    with serve(scratch / "hub") as hub:
        transcript = Transcript(work, hub.url)
        _train(transcript)
        _load(transcript)
        _search(transcript)
    return "".join(transcript.lines).lstrip()


def _train(transcript: Transcript) -> None:
    transcript.tell(
        "A language model of one layer at random goes to the Hub, so that others can load what is "
        "built on it. (`data` and `tiny-llama` are written by "
        "tests/support/generated_chatearthnet.py and tests/support/tiny_models.py.)"
    )
    transcript.run("hf upload jane/tiny-llama tiny-llama .")
    transcript.tell(
        "Two epochs, eight steps, published at the end. The run is killed twice with SIGKILL, and "
        "resumed twice."
    )
    push = f"{TRAIN} --push_to_hub jane/tiny-bridge"
    transcript.kill(push, "run/checkpoints/2")
    transcript.kill(f"{push} --resume last", "run/checkpoints/6")
    transcript.run(f"{push} --resume last")
    transcript.tell("The same run without interruption ends with the same weights.")
    transcript.run(TRAIN.replace("--output_dir run", "--output_dir straight"))
    transcript.run("sha256sum run/*.safetensors straight/*.safetensors")


def _load(transcript: Transcript) -> None:
    transcript.tell("The cache is wiped; another process loads the bridge by its name.")
    transcript.run("rm -r ~/.cache/huggingface run straight")
    describe = "earthvlm describe generated_0008.png --data_dir data --device cpu --max_length 12"
    transcript.run(f"{describe} --model_path jane/tiny-bridge")
    transcript.tell("With the Hub's address gone, what was fetched still answers.")
    transcript.run(
        f"HF_ENDPOINT=http://127.0.0.1:9 {describe} --model_path jane/tiny-bridge",
    )


def _search(transcript: Transcript) -> None:
    transcript.tell("Its embeddings of the data become a dataset.")
    transcript.run(
        "accelerate launch -m earthvlm embed-dataset --data_dir data --bridge jane/tiny-bridge \\\n"
        "    --splits train val --num_workers 0 --output embeddings \\\n"
        "    --push_to_hub jane/tiny-embeddings"
    )
    transcript.tell("The cache is wiped again; the app shows both by their names.")
    transcript.run("rm -r ~/.cache/huggingface embeddings")
    port = free_port()
    app = (
        "EARTHVLM_BRIDGE=jane/tiny-bridge EARTHVLM_EMBEDDINGS=jane/tiny-embeddings \\\n"
        f"    GRADIO_SERVER_PORT={port} earthvlm app"
    )
    with transcript.serving(app, port):
        transcript.run(SEARCH.format(port=port))


def main(arguments: list[str]) -> int:
    """Write the transcript into the page after the line `MARK`."""
    page = Path(arguments[0]) if arguments else PAGE
    written, mark, _ = page.read_text("utf-8").partition(MARK)
    if not mark:
        print(f"hub_transcript: {page} has no line {MARK.strip()!r}.", file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="earthvlm-transcript-"))
    try:
        page.write_text(f"{written}{mark}\n{write_transcript(scratch)}", "utf-8")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
