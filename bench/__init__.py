"""Benchmarks: each suite prints a table and writes figures with their allowed ranges to bench/results."""
