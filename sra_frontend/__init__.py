"""XML in, XML out: the storage replication adapter, a client of the API. It is not built yet."""
