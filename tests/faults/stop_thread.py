"""Stops single threads of a process and lets the others run: stop_thread.py PID NAME [NUMBER]

Those whose name begins with NAME; with NUMBER only one of them, counted from 0 in the order in which they were started.

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


def name_of(thread):
    with open(f"/proc/{pid}/task/{thread}/comm") as comm:
        return comm.read()


pid, name = sys.argv[1:3]
threads = [thread for thread in sorted(map(int, os.listdir(f"/proc/{pid}/task"))) if name_of(thread).startswith(name)]
if len(sys.argv) > 3:
    threads = [threads[int(sys.argv[3])]]
for thread in threads:
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
print(f"stopped {len(threads)}", flush=True)
WALL = 0x40000000
try:
    while True:
        os.waitpid(-1, WALL)
except ChildProcessError:
    pass
