"""The web app: chat with a scene, search, a map, and two dates side by side."""
