"""`accelerate launch train_accelerate.py` is `accelerate launch -m earthvlm.train`."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
