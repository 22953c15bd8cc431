"""The one error of a conversion."""


class ConversionError(Exception):
    """The file cannot be converted; the message says which layer or part is in the way."""
