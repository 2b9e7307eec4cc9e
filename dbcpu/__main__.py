"""`python -m dbcpu`, the same as the `dbcpu` command."""

from dbcpu.cli.main import run

if __name__ == "__main__":
    run()
