"""The executor: a gRPC service that runs code in isolated sandboxes for callers it has authenticated."""
