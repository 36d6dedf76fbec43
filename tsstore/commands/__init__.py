"""The commands of the command line, by subject: each parses, calls and prints."""
