"""What is measured in a scene without a model: spectral indices, haze, change."""
