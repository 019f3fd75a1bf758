"""The sub-commands of `earthvlm`: one file each, with the function that adds it to the parser."""
