"""Errors of local mode. The command line prints their text as one line and exits with status 1."""


class LocalError(Exception):
    """Something that the user of `modelmesh local` can read and act on."""


class PortTakenError(LocalError):
    """A fixed port of 127.0.0.1 is in use by another process."""


class ToolUnavailableError(LocalError):
    """A program that local mode needs is neither on PATH nor installable."""


class EnvironmentFailedError(LocalError):
    """The Python environment of a model server could not be built."""

    reason = "EnvironmentFailed"


class AlreadyRunningError(LocalError):
    """This home directory has a running cluster."""


class NotRunningError(LocalError):
    """This home directory has no running cluster."""


class StartFailedError(LocalError):
    """The cluster did not come up."""


class PodSpecError(LocalError):
    """A pod asks for something that local mode cannot give; the pod's status and events carry the text.

    Attributes:
        reason: the CamelCase word shown by `kubectl get pods`.
    """

    reason = "CreateContainerConfigError"


class ProfileMissingError(PodSpecError):
    """No local profile says how to run this image as a process."""

    reason = "NoLocalProfile"


class SamplesFailedError(LocalError):
    """The sample models could not be trained or stored."""


class QuickstartFailedError(LocalError):
    """A step of the quickstart did not show what it must."""
