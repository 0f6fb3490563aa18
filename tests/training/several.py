"""Run by torchrun on all ranks: several commands in turn, so that none but the first has to import all."""

import json
import sys

import pytest
from light import lighten

from seqssl import cli

if __name__ == "__main__":
    lighten(pytest.MonkeyPatch())
    for arguments in json.loads(sys.argv[1]):
        if code := cli.main(arguments):
            sys.exit(code)
