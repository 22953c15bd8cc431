"""`modelmesh conformance`: does a runtime keep the contract of the SPI?

A runtime is whatever answers `mmesh.ModelRuntime`: an adapter, or a model server that speaks the SPI itself.
The suite takes the mesh's place before it and asks what the mesh would ask. Each module of checks has one
part of the contract; a check is a function whose name is the check's name and whose docstring is what it
demands.
"""
