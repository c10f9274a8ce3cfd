"""`python -m distrun`."""

from distrun.cli.main import main

main()
