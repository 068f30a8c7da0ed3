"""`python -m deployer.cli` is `fedspan`."""

from deployer.cli import main

main()
