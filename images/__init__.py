"""Container images: one folder with a Containerfile each, and `python -m images`, which builds them."""
