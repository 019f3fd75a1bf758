"""Captions, labels, synthetic questions, augmentation; imports models and below."""
