"""What the user of a native cluster can do something about."""


class NativeClusterError(Exception):
    """Says what went wrong, where, and what to do."""
