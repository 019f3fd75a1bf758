"""Evaluation of a bridge on a dataset; imports embeddings and lower packages."""
