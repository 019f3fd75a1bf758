"""Scores of texts and rankings with confidence intervals; imports data and lower packages."""
