"""``python -m dppmask`` is the ``dppmask`` command."""

import sys

from dppmask.cli import main

if __name__ == "__main__":
    sys.exit(main())
