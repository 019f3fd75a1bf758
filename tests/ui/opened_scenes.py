"""Opened scenes for the tests of the app."""

from __future__ import annotations

import numpy as np

from earthvlm.scenes.analysis.distribution_shift import warn_out_of_distribution
from earthvlm.scenes.analysis.spectral_indices import measure
from earthvlm.scenes.scene import Scene
from earthvlm.serving.measurements import suggest_questions
from earthvlm.serving.service import OpenScene


def make_photo(name: str) -> Scene:
    array = np.random.default_rng(0).integers(300, 3000, (16, 16, 3)).astype(np.float32)
    return Scene.from_array(array, ("B04", "B03", "B02"), name=name)


def open_scene(scene: Scene) -> OpenScene:
    measured = measure(scene)
    warnings = warn_out_of_distribution(scene, measured)
    return OpenScene(scene, measured, tuple(warnings), tuple(suggest_questions(measured)))
