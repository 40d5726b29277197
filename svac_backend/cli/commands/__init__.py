"""The commands' options and help texts; the code of a command is imported only when it runs, so that help is fast."""
