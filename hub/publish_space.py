"""`python hub/publish_space.py` is `earthvlm publish-space`."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish-space", *sys.argv[1:]]))
