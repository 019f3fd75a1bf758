"""Commands on training: download, validate-data, train, evaluate."""
