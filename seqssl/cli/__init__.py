"""The command line."""

from seqssl.cli.main import main as main
