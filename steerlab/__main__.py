"""`python -m steerlab`."""

from steerlab.cli import main

main()
