"""OlmoEarthVLMBridge: forward, files, card, publishing; imports generation, metrics, below."""
