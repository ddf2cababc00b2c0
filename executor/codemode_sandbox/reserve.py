"""Memory that user code leaves to its interpreter.

Code that fills its memory and keeps what it has would leave the interpreter
none to say so, or to take the next command. While code runs, the limit is a
little lower than it is for the interpreter itself. Code can lift it again; it
then has the limit of the kernel to reckon with, which kills.
"""

import resource

RESERVE = 24 << 20


def hold() -> None:
    """Keep the reserve from the code that runs next."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and hard > 2 * RESERVE:
        resource.setrlimit(resource.RLIMIT_DATA, (hard - RESERVE, hard))


def release() -> None:
    """Give the interpreter its reserve."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
