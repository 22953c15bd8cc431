"""The registry's home: an etcd v3 client, the key layout and the record types that mesh and controller share.

`Store` (base) has two implementations, etcd and in-process memory, which pass one test suite. `Table` mirrors
a prefix of typed records by watch; `Session` keeps a lease and the keys that live as long as it.
"""
