"""Decoding, prompt lookup, caches of sessions; imports data and below."""
