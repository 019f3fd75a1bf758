"""The web app: chat with a scene, search, a map, and two dates side by side."""

from earthvlm.ui.app import LAUNCH_OPTIONS, build_app, warm_up
from earthvlm.ui.models import Models, load_models

__all__ = ["LAUNCH_OPTIONS", "Models", "build_app", "load_models", "warm_up"]
