"""Fixtures that several test files share: small random models, and where the real data is."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from earthvlm.scenes.bands import BANDS
from earthvlm.scenes.scene import Scene
from tests.support.hub_server import TOKEN, LocalHub, serve

# Models are imported where they are needed: xdist's first process, which starts the others, needs
# none.
if TYPE_CHECKING:
    import torch

    from earthvlm.bridge.model import OlmoEarthVLMBridge


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seed of this order, with -q too, so that any run can be repeated."""
    seed = terminalreporter.config.getoption("randomly_seed", None)
    terminalreporter.write_line(f"To repeat this order: --randomly-seed={seed}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Let few processes start a browser, where each takes a file at a time."""
    from tests.support.scheduling import FewBrowsers

    return FewBrowsers(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Fork the processes of a run from one that has imported the libraries."""
    if sys.platform != "linux":
        return
    from tests.support.preloaded_python import VARIABLE, PreloadedPython

    folder = tempfile.TemporaryDirectory(prefix="earthvlm-tests-")
    python = PreloadedPython(Path(folder.name))
    for spec in specs:
        spec.python = str(python.executable)
    os.environ[VARIABLE] = str(python.executable)
    config.add_cleanup(folder.cleanup)
    config.add_cleanup(python.close)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while the libraries are imported, because they leave none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # or each collection of garbage would look at all that was imported
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no worker waits for another at the end.

    Files of one kind, and the tests of a file, stay in their random order.
    """
    draw_settings(config, items)
    files: dict[Path, int] = {}
    for item in items:
        weight = 2 if item.get_closest_marker("end_to_end") else 1
        if takes_long(item):
            files[item.path] = max(weight, files.get(item.path, 0))
    items.sort(key=lambda item: -files.get(item.path, 0))
    share_processors()


def draw_settings(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the settings of a test marked `one_setting`, leave the one that the run's seed draws.

    Those of `-m` with this mark, and of a command line that names one, all run.
    """
    if "one_setting" in config.getoption("markexpr", ""):
        return
    settings: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("one_setting"):
            settings.setdefault(item.nodeid.split("[")[0], []).append(item)
    seed = config.getoption("randomly_seed", 0)
    left_out: set[pytest.Item] = set()
    for name, variants in settings.items():
        variants.sort(key=lambda item: item.nodeid)
        left_out |= set(variants) - {random.Random(f"{seed} {name}").choice(variants)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def takes_long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "end_to_end"))


def share_processors() -> None:
    """Let this process compute with its share of the processors."""
    import torch

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    # A forked child lacks the threads of its parent's OpenMP, and would wait for them without end.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@pytest.fixture(autouse=True)
def _seed_torch(request: pytest.FixtureRequest) -> None:
    """Seed torch before each test as pytest-randomly seeds random and numpy."""
    import torch

    torch.manual_seed(int(request.config.getoption("randomly_seed", 0)))


@pytest.fixture(scope="session")
def practice_data() -> Path:
    """Real Sentinel-2 data: a folder with s2_practice/ and scenes/."""
    folder = os.environ.get("EARTHVLM_TEST_DATA", "")
    if not folder or not Path(folder, "s2_practice").is_dir():
        pytest.skip("EARTHVLM_TEST_DATA names no folder with s2_practice/ and scenes/")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_language(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of two layers at random, with the embedded model's tokenizer."""
    from tests.support.tiny_models import save_tiny_model

    folder = tmp_path_factory.mktemp("tiny-language")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    save_tiny_model(folder, "llama", num_hidden_layers=2, **heads)
    return str(folder)


@pytest.fixture
def tiny_repository(hub: LocalHub, tiny_language: str) -> tuple[str, str]:
    """That language model on the Hub of a test: its repository, and the commit."""
    files = {path.name: path.read_bytes() for path in Path(tiny_language).iterdir()}
    return "tests/tiny-llama", hub.repository("tests/tiny-llama").commit(files)


@pytest.fixture(scope="session")
def built_bridge(tiny_language: str) -> tuple[OlmoEarthVLMBridge, torch.Tensor]:
    """What `tiny_bridge` is copied from, and the state of torch's random numbers after it."""
    import torch

    from earthvlm.bridge.model import OlmoEarthVLMBridge

    torch.manual_seed(1)
    bridge = OlmoEarthVLMBridge(
        "random-v1.2-nano",
        tiny_language,
        freeze_olmoearth=False,
        num_geo_queries=8,
        device="cpu",
        dtype=torch.float32,  # exact, whatever this machine computes in by itself
    )
    return bridge, torch.get_rng_state()


@pytest.fixture
def tiny_bridge(
    built_bridge: tuple[OlmoEarthVLMBridge, torch.Tensor], request: pytest.FixtureRequest
) -> OlmoEarthVLMBridge:
    """A bridge at random that trains its encoder too.

    In a test that has a Hub its language model is there, or it could not be published.
    """
    import torch

    from earthvlm.bridge.network import unsaved_revision

    built, random_state = built_bridge
    bridge = copy.deepcopy(built).eval()  # in half the time of building one
    bridge.revision = unsaved_revision()
    torch.set_rng_state(random_state)
    if "hub" in request.fixturenames:
        repository, commit = request.getfixturevalue("tiny_repository")
        bridge.config = replace(bridge.config, vlm_model_id=repository, vlm_revision=commit)
    return bridge


@pytest.fixture(scope="session")
def saved_bridges() -> dict[str, Path]:
    """The folders that `saved` copies, by the revision of the language model."""
    return {}


@pytest.fixture
def saved(saved_bridges: dict[str, Path], tmp_path_factory, tmp_path: Path, request) -> Path:
    """That bridge as a run leaves it, with a log, and one sample with its picture."""
    import torch

    has_hub = "hub" in request.fixturenames
    revision = request.getfixturevalue("tiny_repository")[1] if has_hub else ""
    if revision not in saved_bridges:
        folder = tmp_path_factory.mktemp("saved") / "bridge"
        save_as_a_run(request.getfixturevalue("tiny_bridge"), folder)
        saved_bridges[revision] = folder
    torch.manual_seed(1)
    return shutil.copytree(saved_bridges[revision], tmp_path / "bridge")


def save_as_a_run(bridge: OlmoEarthVLMBridge, folder: Path) -> None:
    """Write what a training run of two steps leaves in its folder."""
    import torch

    bridge.record_training(
        "trained for 2 steps on 8 Sentinel-2 tiles",
        {
            "command": "accelerate launch -m earthvlm.train --data_dir DATA --batch_size 6",
            "steps": 2,
            "seconds": 60,
            "device": "CPU",
            "torch": torch.__version__,
            "dataset": None,
            "earlier": [],
        },
    )
    bridge.save_pretrained(folder)
    (folder / "samples").mkdir()
    random_scene().composite().save(folder / "samples" / "a.png")
    sample = {"image": "a.png", "answer": "Water | land.", "reference": "Water.\nNothing else."}
    log = [{"stage": "validation", "step": 2, "loss": {}, "samples": [sample]}]
    (folder / "training_log.json").write_text(json.dumps(log))


@pytest.fixture
def hub(request, monkeypatch, tmp_path_factory) -> Iterator[LocalHub]:
    """An empty Hub on this machine, which huggingface_hub's client here asks, and may write to.

    Large files come by hf_xet, as by default; by plain HTTP where `with_and_without_xet` says so.
    """
    import huggingface_hub.constants as constants
    from huggingface_hub.utils._xet import abort_xet_session

    from earthvlm.storage.hub_fetch import ASKING

    is_xet_disabled = not getattr(request, "param", True)
    home = tmp_path_factory.mktemp("hub-home")
    with serve(tmp_path_factory.mktemp("hub")) as hub:
        ask_hub_at(hub.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", is_xet_disabled)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        for name, value in hub_environment(hub.url, home, is_xet_disabled).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(
            "earthvlm.storage.hub_fetch.ANSWER_SECONDS", 60.0
        )  # a busy machine is no fault
        abort_xet_session()  # which keeps the settings of the environment it was made in
        yield hub
        hub.hanging, hub.hanging_paths = False, None
        for thread in threading.enumerate():
            if thread.name == ASKING:  # one that was given up would warn in a later test
                thread.join(30)
        abort_xet_session()


# The client's default, and by night what a Hub without Xet needs.
with_and_without_xet = pytest.mark.parametrize(
    "hub",
    [True, pytest.param(False, marks=pytest.mark.nightly)],
    ids=["xet", "http"],
    indirect=True,
)
without_xet = pytest.mark.parametrize("hub", [False], ids=["http"], indirect=True)


def ask_hub_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub's client in this process take the Hub to be there."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_ENDPOINT", url)


def hub_environment(url: str, home: Path, is_xet_disabled: bool = False) -> dict[str, str]:
    """What makes another process ask the Hub at this address, with a cache of its own."""
    settings = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    switches = {"HF_HUB_DISABLE_XET": str(int(is_xet_disabled))}
    # hf_xet repeats a request as often as ever, but does not wait for seconds before.
    switches["HF_XET_CLIENT_RETRY_BASE_DELAY"] = "10ms"
    switches["HF_HUB_ETAG_TIMEOUT"] = "60"  # a busy machine is no fault
    return {**os.environ, **settings, **switches}


@pytest.fixture(scope="session")
def bundled_bridge() -> OlmoEarthVLMBridge:
    from earthvlm.bridge.model import OlmoEarthVLMBridge

    return OlmoEarthVLMBridge.from_pretrained("bundled", device="cpu")


@pytest.fixture
def embed_words(monkeypatch):
    """Let every search for words be one given vector, without the sentence model."""

    def let_words_be(vector: np.ndarray) -> None:
        monkeypatch.setattr(
            "earthvlm.models.text_encoder.embed_sentences", lambda texts, *_: vector[None]
        )

    return let_words_be


def run_apart(coroutine: Coroutine) -> Any:
    """Run in a thread of its own: the browser of other tests keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def draw_adapter(bridge: OlmoEarthVLMBridge, std: float = 0.05) -> None:
    """Fill the adapter's second factors, whose zeros adapt nothing, with random numbers."""
    import torch

    with torch.no_grad():
        for name, parameter in bridge.language_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)


def random_scene(height: int = 64, width: int = 64, seed: int = 0) -> Scene:
    """A scene of noise with all bands."""
    rng = np.random.default_rng(seed)
    return Scene.from_array(rng.uniform(200, 4000, (height, width, 12)).astype(np.float32), BANDS)
