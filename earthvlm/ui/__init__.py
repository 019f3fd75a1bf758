"""The web app: chat with a scene in one tab, search among scenes in the other."""

from earthvlm.ui.app import LAUNCH_OPTIONS, build_app, warm_up

__all__ = ["LAUNCH_OPTIONS", "build_app", "warm_up"]
