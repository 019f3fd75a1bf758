"""Scenes and phenomena that are drawn, because no training image shows them."""
