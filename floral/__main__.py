"""``python -m floral`` is the command line."""

import sys

from floral.cli import main

if __name__ == "__main__":
    sys.exit(main())
