"""`python -m app.cli` is `gradsmith-server`."""

from app.cli import main

if __name__ == "__main__":
    main()
