"""`python -m ttt_memory`: the command line."""

from ttt_memory.cli import main

main()
