"""Chat with Sentinel-2 scenes and search among them.

The public classes and `pipeline` load on first use, so that importing the package, or asking the
command line for its help, does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from earthvlm._version import __version__

if TYPE_CHECKING:
    from earthvlm.bridge.model import OlmoEarthVLMBridge
    from earthvlm.scenes.scene import Scene
    from earthvlm.search.index import SceneIndex
    from earthvlm.serving.pipelines import pipeline
    from earthvlm.serving.scene_embedder import SceneEmbedder

__all__ = [
    "OlmoEarthVLMBridge",
    "Scene",
    "SceneEmbedder",
    "SceneIndex",
    "__version__",
    "pipeline",
]

_HOMES = {
    "OlmoEarthVLMBridge": "earthvlm.bridge.model",
    "Scene": "earthvlm.scenes.scene",
    "SceneEmbedder": "earthvlm.serving.scene_embedder",
    "SceneIndex": "earthvlm.search.index",
    "pipeline": "earthvlm.serving.pipelines",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
