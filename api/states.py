"""The words in which a model's state is told, shared by Predictor and InferenceService."""

from typing import Literal

ModelState = Literal["", "Pending", "Standby", "Loading", "Loaded", "FailedToLoad"]
"""State of one model. Empty: there is no such model, for instance no target beside the active one."""

FailureReason = Literal[
    "ModelLoadFailed",
    "RuntimeUnhealthy",
    "NoSupportingRuntime",
    "RuntimeNotRecognized",
    "InvalidPredictorSpec",
]
"""Why a model cannot be served as declared."""

TransitionStatus = Literal["UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"]
"""How far the declared model has replaced the one being served."""
