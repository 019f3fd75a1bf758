"""Evaluating a bridge on a split; imports embeddings and below."""
