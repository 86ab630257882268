"""The version of the server that is installed."""

from importlib.metadata import version

VERSION = version("gradsmith-server")
