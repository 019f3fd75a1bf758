"""The Hub, tensors, files written atomically; imports no other package."""
