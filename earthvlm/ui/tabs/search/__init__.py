"""The Search tab, and the filters that the Map tab shares."""
