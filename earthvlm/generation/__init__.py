"""Decoding, prompt lookup, caches of sessions, llama.cpp; imports data and below."""
