"""controller-runtime for Python: what an operator needs between a Kubernetes API and its reconcilers."""
