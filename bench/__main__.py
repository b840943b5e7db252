"""``python -m bench`` is ``fusebench``."""

from bench.cli import main

main()
