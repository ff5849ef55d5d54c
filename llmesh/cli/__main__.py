"""`python -m llmesh.cli`: the command line where no script is installed."""

from llmesh.cli import main

if __name__ == "__main__":
    main()
