"""`python -m pytest_llmchaos.cli`."""

import sys

from pytest_llmchaos.cli import main

if __name__ == "__main__":
    sys.exit(main())
