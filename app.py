"""The web app's entry, here and on a Space: `python app.py` is `earthvlm app`."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["app"]))
