"""Measures this server against others: ``python -m tests.bench``."""
