"""Adapters: what stands between a mesh instance and a model server that knows nothing of meshes.

`sdk` speaks the management SPI and keeps its promises; one small module per server (`mlserver`) says how to
lay files out and how to tell the server; `puller` brings models from storage.
"""
