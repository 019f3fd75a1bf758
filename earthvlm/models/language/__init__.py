"""Language models: their loading, their prompt formats, and Moondream2's vision."""
