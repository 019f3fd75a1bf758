"""Samples of training: drawn, prepared, cached, and joined into batches."""
