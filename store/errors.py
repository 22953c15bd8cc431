"""What can go wrong between us and the store."""


class StoreError(Exception):
    """Any failure of the store."""


class ConnectionConfigError(StoreError):
    """The etcd connection settings cannot be used; the text names the setting."""


class StoreUnavailableError(StoreError):
    """The store did not answer in time at any endpoint; trying again later may help."""


class StoreAuthError(StoreError):
    """The store refused the user, the password or the permission."""


class HistoryLostError(StoreError):
    """A watch cannot resume: its revision was compacted, or the store was replaced. Read the range again."""


class LeaseLostError(StoreError):
    """The lease expired or was revoked."""


class CorruptRecordError(StoreError):
    """A value cannot be decoded as its record."""
