"""What a bridge remembers of the scenes in use: contexts, maps, tokens and overviews."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from earthvlm.models.olmoearth import SceneTokens
from earthvlm.scenes.land_cover import CoverMap
from earthvlm.scenes.overview import shrink_scene
from earthvlm.scenes.scene import Scene

# Prompts and embeddings see at most this many pixels of a scene: the encoder's work grows with
# them, and answers are about the scene as a whole. Spectral measurements see all pixels.
OVERVIEW_PIXELS = 512 * 512


@dataclass(eq=False)
class SceneMemory:
    """Of scenes in use, and forgotten with them.

    contexts: the text before a question. cover_maps: a byte a pixel. tokens: the encoder's, of the
    overview that was mapped last, which its prompt needs next. overviews: see `overview`.
    """

    contexts: WeakKeyDictionary[Scene, str] = field(default_factory=WeakKeyDictionary)
    cover_maps: WeakKeyDictionary[Scene, CoverMap] = field(default_factory=WeakKeyDictionary)
    tokens: WeakKeyDictionary[Scene, SceneTokens] = field(default_factory=WeakKeyDictionary)
    overviews: WeakKeyDictionary[Scene, Scene] = field(default_factory=WeakKeyDictionary)

    def overview(self, scene: Scene) -> Scene:
        """Return the scene as prompts and embeddings see it, itself where it is small enough."""
        if scene.height * scene.width <= OVERVIEW_PIXELS:
            return scene
        if scene not in self.overviews:
            self.overviews[scene] = shrink_scene(scene, OVERVIEW_PIXELS)
        return self.overviews[scene]

    def clear(self) -> None:
        """Forget all, because the weights changed."""
        for kept in (self.contexts, self.cover_maps, self.tokens, self.overviews):
            kept.clear()
