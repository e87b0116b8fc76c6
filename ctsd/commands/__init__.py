"""What L{ctsd.cli} can be told to do: a module for each command, and what they share."""
