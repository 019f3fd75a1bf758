"""Datasets of one's own: folders with metadata, conversation files, and datasets on the Hub."""
