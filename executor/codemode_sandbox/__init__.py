"""What runs inside a sandbox: a supervisor, the interpreters it forks, and the `tools` they see.

Nothing here is trusted by the executor. The supervisor's words (an interpreter
ended, memory ran out, the sandbox is clean) are kept apart from an
interpreter's, which are opaque bytes to it. Only the standard library and
IPython are imported, so that any image with IPython can hold a sandbox.
"""
