"""`python -m seqssl`, also for `torchrun -m seqssl`."""

import sys

from seqssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
