"""Training a bridge: samples, losses, steps, checkpoints; imports embeddings and below."""
