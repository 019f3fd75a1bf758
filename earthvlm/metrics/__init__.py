"""Scores of texts and rankings, with intervals; imports data and below."""
