"""Start of a sandbox: load what every interpreter needs, then supervise.

Run as `python -I -m codemode_sandbox SETTINGS_JSON`, link on descriptors 0 and 1.
"""

import gc
import os
import site
import sys
import time
from importlib import import_module

# The usual eight megabytes each would fill the memory limit with fifty threads that use next to nothing.
THREAD_STACK_BYTES = 2 << 20
started = time.monotonic()


def main() -> None:
    """Become process 1 of a sandbox; in a forked process, become what its channel is for."""
    from codemode_sandbox.settings import Settings

    settings = Settings.from_json(sys.argv[-1])
    for directory in settings.site:
        site.addsitedir(directory)
    os.environ.clear()
    os.environ.update(settings.environment)

    # Everything a fork will need is loaded before it.
    from codemode_sandbox import errors, fork_hooks, prefault

    with fork_hooks.put_off():
        import_module("threading").stack_size(THREAD_STACK_BYTES)
        import_module("logging")
        import_module("IPython.core.history")
    from codemode_sandbox.files import serve_files
    from codemode_sandbox.frames import INTERPRETER_CHANNEL
    from codemode_sandbox.interpreter import Interpreter
    from codemode_sandbox.shell import make_shell
    from codemode_sandbox.supervisor import Supervisor

    errors.limits.update(settings.limits)
    for name in settings.preload:
        import_module(name)
    interpreter = Interpreter(make_shell())
    # Objects that exist now are never collected, so a fork's collector leaves their pages shared.
    gc.collect()
    gc.freeze()
    gc.disable()
    hot = prefault.scout(interpreter.rehearse)
    channel = Supervisor(settings, started).run()
    if channel is None:
        return
    if channel == INTERPRETER_CHANNEL:
        fork_hooks.restore()
        interpreter.serve(hot)
    else:
        serve_files(settings.work)
    # Not sys.exit: what user code left in atexit, threads and finalizers is not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
