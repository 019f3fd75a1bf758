"""Places and dates in words, and the towns near a position."""
