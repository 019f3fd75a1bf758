"""HTML of scenes, land-cover maps and their titles, and pictures for it."""
