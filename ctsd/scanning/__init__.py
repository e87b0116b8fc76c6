"""
Scans, from the artifact to the final answer.

L{ctsd.scanning.scanner} makes the first answer; L{ctsd.scanning.promises} keeps what it left open,
L{ctsd.scanning.upkeep} takes up what waits, L{ctsd.scanning.views} tells what is known. One search
is run by L{ctsd.scanning.running}, what is asked and answered in it is in L{ctsd.scanning.asking}.
"""
