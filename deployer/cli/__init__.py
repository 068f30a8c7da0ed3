"""The `fedspan` command."""


def main() -> None:
    """Entry point of the `fedspan` command."""
    from deployer.cli.app import app

    app()
