"""Measurements: ``pytest bench`` for the parts, ``python -m bench.compare`` for the whole beside other tools."""
