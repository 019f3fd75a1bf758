"""HTML of scenes, land-cover maps and their titles."""
