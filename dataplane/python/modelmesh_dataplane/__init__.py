"""The byte path of Modelmesh."""
