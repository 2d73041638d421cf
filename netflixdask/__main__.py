"""``python -m netflixdask``: the command line."""

from __future__ import annotations

from netflixdask.cli import main

if __name__ == "__main__":
    main()
