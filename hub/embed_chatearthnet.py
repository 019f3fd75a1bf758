"""`accelerate launch hub/embed_chatearthnet.py` is `... -m earthvlm embed-dataset`."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["embed-dataset", *sys.argv[1:]]))
