"""`python -m compress`, as `accelerate launch -m compress` starts it."""

from __future__ import annotations

from compress.cli import main

if __name__ == "__main__":
    main()
