"""`python -m tpseg.cli`: the command line without an installed script."""

import sys

from tpseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
