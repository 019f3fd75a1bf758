"""Commands on scenes: describe, segment, search, classify, fetch, index."""
