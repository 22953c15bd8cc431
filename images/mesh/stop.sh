#!/bin/sh
# The preStop hook of container `mm`. The mesh leaves on SIGTERM, models and requests in order, within the pod's grace
# period; there is nothing to wait for here, though the hook is called with `wait`.
kill -TERM 1
