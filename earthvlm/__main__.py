"""`python -m earthvlm` is the `earthvlm` command, for where the command is not on the path."""

import sys

from earthvlm.cli import main

if __name__ == "__main__":
    sys.exit(main())
