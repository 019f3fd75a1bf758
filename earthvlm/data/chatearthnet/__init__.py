"""The dataset ChatEarthNet: its tiles and captions, its download, its validation."""
