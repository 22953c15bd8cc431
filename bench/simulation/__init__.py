"""The mesh's own decisions on a fake clock, against caches that no distributed system can beat.

`python -m bench.simulation` prints hit rates and loads of each scenario, and saves how far the mesh is
from one global least-recently-used cache of the same total size.
"""
