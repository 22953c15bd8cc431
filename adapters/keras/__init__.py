"""Keras' HDF5 files as ONNX: what the original did by TensorFlow, for the layers that are common.

`model` reads a file, `layers` says what each layer computes in ONNX, `graph` writes ONNX, and the program
`python -m adapters.keras FILE RESULT` does it all in a process of its own, so that an adapter's memory stays
what it is.
"""
