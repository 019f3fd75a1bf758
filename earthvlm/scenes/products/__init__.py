"""Images whose bands lie in files of their own: products, folders, archives, STAC items."""
