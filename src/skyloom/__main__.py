"""Run the command line with ``python -m skyloom``."""

from skyloom.flows.command_line import main

if __name__ == "__main__":
    main()
