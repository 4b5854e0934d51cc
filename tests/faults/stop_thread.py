"""Stops single threads of a process and lets the others run: stop_thread.py PID NAME...

A signal would stop the whole process. A tracer can hold one thread (ptrace(2), PTRACE_INTERRUPT). The process can end all the
same, once its tracer has taken notice of each thread's end.
"""

import ctypes
import os
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace of thread {thread}: {os.strerror(ctypes.get_errno())}")


pid, names = sys.argv[1], sys.argv[2:]
stopped = 0
for thread in os.listdir(f"/proc/{pid}/task"):
    with open(f"/proc/{pid}/task/{thread}/comm") as comm:
        if any(comm.read().startswith(name) for name in names):
            ptrace(PTRACE_SEIZE, int(thread))
            ptrace(PTRACE_INTERRUPT, int(thread))
            stopped += 1
print(f"stopped {stopped}", flush=True)
WALL = 0x40000000
try:
    while True:
        os.waitpid(-1, WALL)
except ChildProcessError:
    pass
