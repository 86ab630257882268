"""`python -m gradsmith.cli`."""

from gradsmith.cli import main

main()
