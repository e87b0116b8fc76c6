"""
Scans, from the artifact to the final answer.

L{ctsd.scanning.scanner} makes the first answer, L{ctsd.scanning.following} that of a scan which
another node works on; L{ctsd.scanning.promises} keeps what it left open, L{ctsd.scanning.upkeep}
and L{ctsd.scanning.resuming} take up what waits, L{ctsd.scanning.views} tells what is known. One
search is run by L{ctsd.scanning.running}, what is asked and answered in it is in
L{ctsd.scanning.asking}.
"""
