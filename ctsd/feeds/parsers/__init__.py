"""
From a provider's file to records: unpacked, read row by row, and each row turned into what its
description (L{ctsd.feeds.layout.Layout}) makes of it. Begin with L{ctsd.feeds.parsers.parse}.

All of it is meant for a child process: it blocks. Nothing in here holds more of a file than a row
of C{max_row_bytes} and a few read buffers.
"""
