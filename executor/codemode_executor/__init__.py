"""The executor: runs code in sandboxes for callers that reach it over gRPC."""

import os

# gRPC's fork handlers wait for its own threads, and now and then leave a child that never gets to its `exec`.
# This process forks only to start sandboxes, which never use gRPC. It is read when gRPC is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
