"""The launcher: the `modelmesh` command, which starts every part of the project by name."""
