"""OlmoEarth, query encoder, language models, text encoder, LoRA; imports scenes, storage."""
