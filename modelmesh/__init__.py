"""modelmesh."""
