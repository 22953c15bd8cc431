"""One mesh instance: decides which models are loaded where, and tells the byte path.

`node.MeshNode` ties the parts together. Decisions (`cache`, `placement`, `constraints`) are pure; the effects
are in `loading` (the model server), `registry` and `vmodels` (the store), `routes` (the byte path), `peer`
(other instances).
"""
