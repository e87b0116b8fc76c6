"""
Several processes that answer, and one that watches them.

The supervisor opens the sockets and keeps them; each worker gets one socket a listener (or shares
one, where it is systemd's or a Unix socket). A socket is never closed while we run, so that nobody
who waits in its queue is lost when a worker ends and another one takes its place.
"""
