"""The app's service as it runs on ZeroGPU: the real `spaces` package, without its GPU.

    python -m tests.support.zero_gpu

Started with a ZeroGPU Space's environment, and a device API in this process that lends to all who
ask. `spaces` lets torch pretend to a GPU until a function runs in a process that has one; there, on
a machine without CUDA, what it kept for the GPU is used where it lies. Prints JSON.
"""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import torch

LENT = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "lent"}
SCENE = "austria_2017-06-13_87_48"


class DeviceApi(BaseHTTPRequestHandler):
    """Stands in for the server that lends a Space its GPU."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path.partition("?")[0])
        body = json.dumps(LENT).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def use_what_is_here(callback: object = None) -> None:
    """Replaces moving tensors to the GPU."""
    from spaces.zero.torch import patching

    for on_gpu, kept in list(patching.cuda_aliases.items()):
        on_gpu.data = kept


def main() -> None:
    api = ThreadingHTTPServer(("127.0.0.1", 0), DeviceApi)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    os.environ["SPACES_ZERO_GPU"] = "true"
    os.environ["SPACES_ZERO_DEVICE_API_URL"] = f"http://127.0.0.1:{api.server_port}"
    if torch.version.cuda is None:  # what `spaces` looks for in a build with CUDA
        torch.version.cuda = "13.0"
        torch._C._cuda_init = lambda: None
        torch.cuda._is_in_bad_fork = bool

    from earthvlm import Scene
    from earthvlm.serving.service import Client
    from earthvlm.ui.app import make_service, warm_up
    from earthvlm.ui.models import load_models

    models = load_models()
    warm_up(models)
    service = make_service(models)
    import spaces.zero.torch as lent

    lent.init, lent.move = lambda uuid: None, use_what_is_here
    scene = Scene.open(models.index.get(SCENE).scene_file)
    question = {"role": "user", "content": "Is there water?"}
    answer = service.ask(scene, question["content"], Client("somebody"))
    found = service.search(scene, 1, Client("somebody"))
    said = [question, {"role": "assistant", "content": answer}]
    looked = service.attend(scene, said, Client("somebody"))
    told = {
        "device": str(models.bridge.device),
        "answer": answer,
        "found": found[0].image_id,
        "words": "".join(looked.words),
        "asked": DeviceApi.asked,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
