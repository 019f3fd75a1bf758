"""`python -m earthvlm.train` is `earthvlm train`, as `accelerate launch -m` takes it."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
