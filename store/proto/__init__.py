"""Messages and services of etcd's v3 API."""
