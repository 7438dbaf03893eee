"""Measure every promised number and write them beside their targets.

Each module here returns rows; ``python -m tests.validation`` runs them all and writes
``docs/validation.md``, ``python -m tests.validation emva pulls`` only prints the named ones.
A row that falls short stays in the page as it is.
"""
