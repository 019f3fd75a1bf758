"""SceneIndex and its engines; imports embeddings and below."""
