"""Pictures without georeference: read as scenes, and drawn of them."""
