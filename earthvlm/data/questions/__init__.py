"""Synthetic questions and answers about a scene, from its labels."""
