"""What can go wrong when images are built."""


class ImageError(Exception):
    """An image cannot be built; says which, why, and what to do."""
