"""The entry of the `fedpg-agent` command: sees to signals before anything that takes long is imported."""

from fedpg_common.cli.entry import start


def main() -> None:
    """Run the command."""
    start("fedpg-agent", "fedpg_client.cli")


if __name__ == "__main__":
    main()
