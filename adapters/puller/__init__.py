"""The puller: models from object stores, with credentials that only administrators choose."""

from adapters.puller.model_key import ModelKey
from adapters.puller.pull import Pulled, Puller

__all__ = ["ModelKey", "Pulled", "Puller"]
