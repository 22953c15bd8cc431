"""A STAND-IN for OpenVINO Model Server, of which no package registry has the program.

It computes with the real OpenVINO, from its wheel, and speaks the parts of the server that Modelmesh and its
clients use, as its documentation tells them: the configuration file and the REST API that reloads it
(`rest`), the V2 protocol (`v2`) and TensorFlow Serving's Predict (`tfs`) by gRPC. It proves what stands
before the server, not that the real one behaves so.

Not there: pipelines, custom nodes, MediaPipe graphs, LLMs, stateful models, shapes and devices in the
configuration, inference by REST, texts and images as inputs.
"""
