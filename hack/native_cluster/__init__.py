"""A one-node Kubernetes from real parts, in Linux namespaces of its own.

docs/how-to/native-cluster.md is for its users; docs/decisions/0034-native-cluster.md says why it is so.
"""
