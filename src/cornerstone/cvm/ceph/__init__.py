"""The storage engine: Ceph, driven through its own tools and bindings."""
