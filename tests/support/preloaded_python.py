"""A Python that has imported the libraries, from which the processes of a test run are forked.

A process that imports torch, transformers and gradio pays ten seconds of a processor for it. Here
one process imports them for all, and its `executable` stands in for `python -c CODE` and
`python -m MODULE`: either runs in a fork of that process, with the files, the environment and the
folder of the caller, which gets the exit code. Linux alone knows all that this needs.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

VARIABLE = "EARTHVLM_TEST_PYTHON"  # tells the processes of a run where the executable is
# Not those that start threads or open files when imported, as ONNX Runtime and PROJ do.
LIBRARIES = (
    "accelerate.utils.fsdp_utils",
    "gradio",
    "matplotlib.figure",
    "mcp",
    "olmoearth_pretrain_minimal",
    "onnx",
    "openai",
    "peft",
    "playwright.sync_api",
    "pyarrow.parquet",
    "pytest",
    "rasterio.warp",
    "safetensors.torch",
    "scipy.ndimage",
    "sentence_transformers",
    "shapely",
    "sklearn.linear_model",
    "torch.distributed.fsdp",
    "transformers.models.llama.modeling_llama",
    "xarray",
    "zarr",
)
UNUSED = 300  # files are numbered from here until they have their places
Request = dict[str, Any]


class PreloadedPython:
    """The process that imports the libraries, and the executable in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        address, self.executable = folder / "socket", folder / "python"
        words = f"'{sys.executable}' -I -S '{Path(__file__).resolve()}' '{address}'"
        self.executable.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.executable.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen()
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--serve", str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                # Sums are reproducible on one thread; tests that want more set it.
                env={**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"},
            )

    def close(self) -> None:
        """Let it end when the last process that was forked from it has ended."""
        self.process.communicate()


def run_elsewhere(address: str, arguments: list[str]) -> int:
    """Run `python ARGUMENTS` in a fork with this process's files; return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        files = [number for number in map(int, os.listdir("/dev/fd")) if is_inherited(number)]
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "files": files,
        }
        text = json.dumps(request).encode()
        server.connect(address)
        socket.send_fds(server, [len(text).to_bytes(8, "big")], files)
        server.sendall(text)
        for number in files:
            os.close(number)  # or a reader would wait for what this process may write
        return int(server.recv(8) or b"1")


def is_inherited(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # that of the folder, which is closed by now
        return False


def read_request(caller: socket.socket) -> tuple[Request, list[int]]:
    """Return the request, and the caller's files as they are numbered here."""
    length, files, _, _ = socket.recv_fds(caller, 8, 250)
    with caller.makefile("rb") as reader:
        return json.loads(reader.read(int.from_bytes(length, "big"))), files


def serve(listener: socket.socket) -> Request | None:
    """Fork a process for each request until stdin closes; in the fork, return its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the forks end by themselves, and then this
    events = selectors.DefaultSelector()
    events.register(listener, selectors.EVENT_READ)
    events.register(sys.stdin, selectors.EVENT_READ)
    forks: dict[int, tuple[int, socket.socket]] = {}  # process and caller, by what tells its end
    while forks or listener.fileno() >= 0:
        for key, _ in events.select():
            if key.fd in forks:
                events.unregister(key.fd)
                os.close(key.fd)
                report_end(*forks.pop(key.fd))
            elif key.fileobj is listener:
                caller, _ = listener.accept()
                request, files = read_request(caller)
                pid = os.fork()
                if pid == 0:
                    for mine in (listener, events, caller, *(other for _, other in forks.values())):
                        mine.close()
                    place_files(files, request["files"])
                    return request
                for file in files:
                    os.close(file)
                end = os.pidfd_open(pid)
                forks[end] = pid, caller
                events.register(end, selectors.EVENT_READ)
            else:
                events.unregister(sys.stdin)
                events.unregister(listener)
                listener.close()
    return None


def report_end(pid: int, caller: socket.socket) -> None:
    """Tell the exit code of a process that has ended, if the caller still asks for it."""
    _, status = os.waitpid(pid, 0)
    with caller, contextlib.suppress(BrokenPipeError):
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())


def place_files(files: list[int], numbers: list[int]) -> None:
    """Give each open file the number that it has in another process."""
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, UNUSED) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def run(request: Request) -> None:
    """Do as `python -c CODE` or `python -m MODULE` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments = request["arguments"]
    start = next(place for place, word in enumerate(arguments) if word in ("-c", "-m"))
    kind, program = arguments[start : start + 2]  # after options of the interpreter
    sys.argv[:] = ["-c", *arguments[start + 2 :]]
    sys.path[0] = ""
    sys.modules["__main__"] = types.ModuleType("__main__")
    exit_code = 0
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, vars(sys.modules["__main__"]))
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
    # Half a second is saved by not taking all modules apart, whose memory is shared until then.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(exit_code)


def main() -> None:
    if sys.argv[1] != "--serve":
        sys.exit(run_elsewhere(sys.argv[1], sys.argv[2:]))
    gc.disable()  # importing leaves no garbage
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # the tests will say that it is missing
            importlib.import_module(name)
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[2])))
    if request:
        run(request)


if __name__ == "__main__":
    main()
