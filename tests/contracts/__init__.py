"""What the fakes have in common with the real thing: cases that run against both.

tests/unit runs them against tests/fakes, tests/integration against this machine's own.
"""
