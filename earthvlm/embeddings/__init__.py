"""The embedding dataset: schema, files, table, folder index; imports bridge and below."""
