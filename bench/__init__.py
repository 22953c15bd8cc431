"""Benchmarks. Each suite prints a table and writes its figures, with their allowed ranges, to bench/results."""
