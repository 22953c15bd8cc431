"""Functional verification: the whole of Modelmesh on a real cluster, as its users see it.

`python -m fvt` runs the parts in order on the cluster of KUBECONFIG: the tutorial, cases that run side by
side, cases that need the installation for themselves, and the cluster-wide installation. `make fvt` brings
up the native cluster for it. The client is kubectl, and pods are reached by `kubectl port-forward`: what is
tested is what users have. Inside a part each case makes its own objects and removes them, so that any case
can be run alone; only the tutorial and the uninstalls are walks.
"""
