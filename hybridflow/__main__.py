"""`python -m hybridflow` is `hybridflow`."""

import sys

from hybridflow.cli import main

if __name__ == "__main__":  # helpers that spawn a process import this module again
    sys.exit(main())
