"""`python -m lpmppl` is the command line."""

from lpmppl.cli import main

if __name__ == "__main__":
    main()
