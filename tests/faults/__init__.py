"""The fault campaign: faults in real processes, then the same command again, and what came of it beside a whole run.

``python -m tests.faults.campaign`` makes all of it and writes ``docs/faults.md``; ``test_faults.py`` one of each kind.
"""
